"""ONNX Runtime engines: any size, the contract, and every refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.engines import BUNDLED, open_engine
from runtime.errors import EngineError
from runtime.spec import METADATA_KEY
from tests.conftest import write_engine

SIZES = [(1, 1), (2, 3), (7, 1), (4, 4), (5, 8), (33, 17), (360, 640), (721, 1279)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_bundled_engine_keeps_every_size(height: int, width: int) -> None:
    engine = open_engine(provider="cpu")
    frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    assert engine.infer(frame).shape == frame.shape


def test_bundled_engine_keeps_1921x1081() -> None:
    frame = np.zeros((1, 1081, 1921, 3), np.uint8)
    assert open_engine(provider="cpu").infer(frame).shape == frame.shape


def test_bundled_engine_works_on_batches_frame_by_frame() -> None:
    engine = open_engine(provider="cpu")
    batch = np.random.default_rng(0).integers(0, 256, (3, 50, 61, 3), dtype=np.uint8)
    single = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(3)])
    assert np.abs(engine.infer(batch).astype(int) - single).max() <= 1


def test_flat_frames_stay_flat_up_to_their_edges() -> None:
    """Black, white and gray need no sharpening; padding must not show at the border."""
    engine = open_engine(provider="cpu")
    for value in (0, 128, 255):
        frame = np.full((1, 41, 59, 3), value, np.uint8)
        assert np.abs(engine.infer(frame).astype(int) - value).max() <= 8


def test_bundled_engine_describes_itself() -> None:
    spec = open_engine(BUNDLED, provider="cpu").spec
    assert (spec.name, spec.precision) == ("deblur_edge_fp32", "fp32")
    assert spec.weights_sha256 is not None
    assert spec.agreement_db is not None
    assert spec.agreement_db >= 60


def test_engine_without_metadata_runs(invert: Path) -> None:
    engine = open_engine(invert)
    frame = np.arange(36, dtype=np.uint8).reshape(1, 3, 4, 3)
    assert np.array_equal(engine.infer(frame), 255 - frame)
    assert engine.spec.name == "invert"


def test_fixed_size_is_a_range_that_is_kept(tmp_path: Path) -> None:
    engine = open_engine(write_engine(tmp_path / "fixed.onnx", shape=(1, 48, 64, 3)))
    assert (engine.spec.height, engine.spec.width) == ((48, 48), (64, 64))
    with pytest.raises(EngineError, match="65x48 is outside the engine's range 64x48 to 64x48"):
        engine.infer(np.zeros((1, 48, 65, 3), np.uint8))


def damaged(folder: Path, invert: Path, kind: str) -> Path:
    path = folder / f"{kind}.onnx"
    whole = invert.read_bytes()
    if kind == "empty":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    elif kind == "junk":
        path.write_bytes(b"not an engine" * 99)
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "metadata":
        model = onnx.load(invert)
        helper.set_model_props(model, {METADATA_KEY: "{"})
        onnx.save(model, path)
    elif kind == "plan":
        path = path.with_suffix(".plan")
        path.write_bytes(whole)
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "directory", "junk", "truncated", "metadata", "plan"])
def test_damaged_engines_are_refused_in_one_line(tmp_path: Path, invert: Path, kind: str) -> None:
    path = damaged(tmp_path, invert, kind)
    with pytest.raises(EngineError) as refusal:
        open_engine(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "contract",
    [
        {"kind": TensorProto.FLOAT},
        {"shape": ("n", 3, "h", "w")},
        {"shape": ("h", "w", 3)},
        {"inputs": 2},
    ],
    ids=["float", "planes", "no batch", "two inputs"],
)
def test_other_contracts_are_refused_with_what_was_expected(tmp_path: Path, contract: dict[str, object]) -> None:
    path = write_engine(tmp_path / "other.onnx", **contract)
    with pytest.raises(EngineError, match=r"expected one input and one output of uint8\[N, H, W, 3\], got"):
        open_engine(path)


def test_missing_provider_is_refused_not_replaced(invert: Path) -> None:
    with pytest.raises(EngineError, match="provider tensorrt is not in this build"):
        open_engine(invert, provider="tensorrt")


def test_failure_while_running_is_an_engine_error(tmp_path: Path) -> None:
    """A graph that loads, but cannot add frames to a picture of another size."""
    nodes = [
        helper.make_node(
            "Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.UINT8, [1, 7, 1, 3], [0] * 21)
        ),
        helper.make_node("Add", ["x0", "c"], ["y"]),
    ]
    engine = open_engine(write_engine(tmp_path / "bad.onnx", nodes=nodes))
    with pytest.raises(EngineError, match="engine failed on a frame of 9x5"):
        engine.infer(np.zeros((1, 5, 9, 3), np.uint8))
