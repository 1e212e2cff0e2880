"""One suite for every engine that can be tried here: the same frames in, the same frames out."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from onnx import TensorProto, helper

from runtime.engines import BUNDLED, BUNDLED_NAMES, Engine, open_backend, resolve_engine
from runtime.engines.onnx import OnnxEngine, _Bound, _Plain
from runtime.engines.openvino import OpenVinoEngine
from runtime.errors import EngineError
from runtime.frame import Pixels
from tests.conftest import picture, write_engine
from tests.standin import HostCuda, put_in_place, write_plan

FP32 = BUNDLED.with_name("edge-s_fp32.onnx")
SIZES = [(1, 1), (2, 3), (7, 1), (4, 4), (5, 8), (33, 17), (360, 640), (721, 1279)]
Open = Callable[[Path], Engine]


ONNX_ENGINES = ["cpu", "cpu throughput", "openvino", "bound"]
PLANS = {
    "plan": {},
    "plan tensorrt": {},
    "plan throughput": {},
    "plan integrated": {"integrated": True},
    "plan without graphs": {"graphs": False},
}


@pytest.fixture(params=[*ONNX_ENGINES, *PLANS])
def opened(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    """Opens the engine of an ONNX file in every way; plans with stand-ins for CUDA and TensorRT."""
    kind: str = request.param
    if kind in PLANS:
        put_in_place(monkeypatch, lambda: HostCuda(**PLANS[kind]))
        mode = "throughput" if kind.endswith("throughput") else "latency"
        flavour = "tensorrt" if kind.endswith("tensorrt") else "tensorrt-rtx"
        return lambda path: open_backend(write_plan(path, tmp_path, flavour=flavour), mode=mode)
    if kind == "cpu throughput":
        return lambda path: open_backend(path, provider="cpu", mode="throughput", threads=2)
    if kind == "bound":  # as on a GPU, on the CPU's memory
        return lambda path: bound(OnnxEngine(path))
    return lambda path: open_backend(path, provider=kind)


def bound(engine: OnnxEngine) -> OnnxEngine:
    assert isinstance(engine._runner, _Plain)
    engine._runner = _Bound(engine._runner._session, "cpu")
    return engine


def test_several_frames_at_once_are_those_of_one_at_a_time() -> None:
    frames = [picture(64, 48, seed=seed)[None] for seed in range(12)]
    for path in (BUNDLED, FP32):
        one, several = (
            open_backend(path, provider="cpu"),
            open_backend(path, provider="cpu", mode="throughput", threads=3),
        )
        assert (one.slots, several.slots) == (1, 4)
        assert several.backend == f"{one.backend} (3 frames at once)"
        results = []
        for index, frame in enumerate(frames):
            if index >= several.slots:
                results.append(several.collect())
            several.submit(frame)
        results += [several.collect() for _ in range(several.slots)]
        for frame, result in zip(frames, results, strict=True):
            assert np.array_equal(result, one.infer(frame))
    assert open_backend(BUNDLED, provider="cpu", mode="throughput", threads=1).slots == 1
    assert open_backend(BUNDLED, provider="cpu", mode="throughput", threads=32).slots == 9


onnx_only = pytest.mark.parametrize("opened", ONNX_ENGINES, indirect=True)


def test_bundled_files_are_small_and_name_no_machine() -> None:
    for path in BUNDLED.parent.rglob("*.*"):
        content = path.read_bytes()
        assert len(content) < 3_000_000, path
        assert path.suffix not in {".onnx", ".json"} or not re.search(rb"/(home|root|tmp|work|usr)/", content), path


def test_a_bundled_engine_is_opened_by_its_name_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [resolve_engine(name).name for name in BUNDLED_NAMES] == [f"{name}_int8_cpu.onnx" for name in BUNDLED_NAMES]
    assert all(resolve_engine(name).is_file() for name in BUNDLED_NAMES)
    assert resolve_engine("mine.onnx") == Path("mine.onnx")
    (tmp_path / "edge-s").mkdir()
    assert resolve_engine("edge-s") == Path("edge-s")


@pytest.mark.parametrize("path", [FP32, BUNDLED], ids=["fp32", "int8_cpu"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_size_is_kept_and_sharpened_alike(opened: Open, path: Path, height: int, width: int) -> None:
    frame = picture(width, height)[None]
    restored = opened(path).infer(frame)
    assert restored.shape == frame.shape
    assert restored.dtype == np.uint8
    expected = open_backend(path, provider="cpu").infer(frame)
    difference = np.abs(restored.astype(int) - expected)
    assert difference.max() <= (1 if path == FP32 else 12)
    assert difference.mean() < 1


def test_1921x1081(opened: Open) -> None:
    frame = np.zeros((1, 1081, 1921, 3), np.uint8)
    assert opened(BUNDLED).infer(frame).shape == frame.shape


def test_batches_are_worked_on_frame_by_frame(opened: Open) -> None:
    engine = opened(FP32)
    batch = np.stack([picture(61, 50, seed=seed) for seed in range(3)])
    single = np.concatenate([engine.infer(batch[i : i + 1]) for i in range(3)])
    assert np.abs(engine.infer(batch).astype(int) - single).max() <= 1


def test_flat_frames_stay_flat_up_to_their_edges(opened: Open) -> None:
    """Black, white and gray need no sharpening; padding must not show at the border."""
    for value in (0, 128, 255):
        frame = np.full((1, 41, 59, 3), value, np.uint8)
        assert np.abs(opened(BUNDLED).infer(frame).astype(int) - value).max() <= 8


def test_results_are_the_callers_to_keep(opened: Open, invert: Path) -> None:
    engine = opened(invert)
    first = engine.infer(picture(8, 6, seed=0)[None])
    kept = first.copy()
    engine.infer(picture(8, 6, seed=1)[None])
    assert np.array_equal(first, kept)


def test_a_frame_that_is_a_view_is_read_as_it_looks(opened: Open, invert: Path) -> None:
    turned = picture(12, 10)[::-1, ::2][None]
    assert np.array_equal(opened(invert).infer(turned), 255 - turned)


def test_two_engines_in_one_process(opened: Open, invert: Path) -> None:
    frame = picture(32, 20)[None]
    one, two = opened(invert), opened(BUNDLED)
    before = two.infer(frame)
    assert np.array_equal(one.infer(frame), 255 - frame)
    assert np.array_equal(two.infer(frame), before)


def test_closed_twice_and_used_after(opened: Open, invert: Path) -> None:
    engine = opened(invert)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="engine has been closed"):
        engine.infer(picture(8, 6)[None])


def test_a_thousand_frames_leave_memory_flat(opened: Open) -> None:
    engine = opened(BUNDLED)
    frame = picture(96, 64)[None]
    process = psutil.Process()
    for _ in range(200):
        engine.infer(frame)
    gc.collect()
    before = process.memory_info().rss
    for _ in range(1000):
        engine.infer(frame)
    gc.collect()
    assert process.memory_info().rss - before < 8 << 20  # the results alone are 18 MB


def test_a_fixed_size_is_a_range_that_is_kept(opened: Open, tmp_path: Path) -> None:
    engine = opened(write_engine(tmp_path / "fixed.onnx", shape=(1, 48, 64, 3)))
    assert (engine.spec.height, engine.spec.width) == ((48, 48), (64, 64))
    with pytest.raises(EngineError, match="65x48 is outside the engine's range 64x48 to 64x48"):
        engine.infer(np.zeros((1, 48, 65, 3), np.uint8))


def test_engines_describe_themselves(opened: Open, invert: Path) -> None:
    engine = opened(BUNDLED)
    assert (engine.spec.name, engine.spec.precision) == ("edge-s_int8_cpu", "int8_cpu")
    assert engine.spec.loss_db is not None
    assert engine.spec.loss_db < 0.3
    assert opened(invert).spec.name == "invert"


@onnx_only
@pytest.mark.parametrize(
    "contract",
    [{"kind": TensorProto.FLOAT}, {"shape": ("n", 3, "h", "w")}, {"shape": ("h", "w", 3)}, {"inputs": 2}],
    ids=["float", "planes", "no batch", "two inputs"],
)
def test_other_contracts_are_refused_with_what_was_expected(
    opened: Open, tmp_path: Path, contract: dict[str, object]
) -> None:
    path = write_engine(tmp_path / "other.onnx", **contract)
    with pytest.raises(EngineError, match=r"expected one input and one output of uint8\[N, H, W, 3\], got"):
        opened(path)


def test_failure_while_running_is_an_engine_error(opened: Open, tmp_path: Path) -> None:
    """A graph that loads, but cannot add frames to a picture of another size."""
    nodes = [
        helper.make_node(
            "Constant", [], ["c"], value=helper.make_tensor("c", TensorProto.UINT8, [1, 7, 1, 3], [0] * 21)
        ),
        helper.make_node("Add", ["x0", "c"], ["y"]),
    ]
    engine = opened(write_engine(tmp_path / "bad.onnx", nodes=nodes))
    with pytest.raises(EngineError, match="engine failed"):
        engine.infer(np.zeros((1, 5, 9, 3), np.uint8))


def test_auto_takes_the_faster_one_and_says_so() -> None:
    backend = open_backend(BUNDLED).backend
    for one, other in (("ONNX Runtime", "OpenVINO"), ("OpenVINO", "ONNX Runtime")):
        if backend.startswith(one):
            rest = backend.split("(")[1].rstrip(")").split(" ms for a small frame; ")
            assert rest[1].startswith(other)
            assert float(rest[0]) <= float(rest[1].rpartition(" ")[2])
            return
    pytest.fail(backend)


def test_auto_needs_no_openvino(monkeypatch: pytest.MonkeyPatch, invert: Path) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("runtime.engines.find_spec", lambda name: None)
    assert open_backend(invert).backend.startswith("ONNX Runtime")
    with pytest.raises(EngineError, match="OpenVINO is not installed"):
        open_backend(invert, provider="openvino")


def test_auto_keeps_to_onnx_runtime_where_openvino_knows_less(monkeypatch: pytest.MonkeyPatch, invert: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("not an engine that OpenVINO can load", hint="")

    monkeypatch.setattr("runtime.engines.OpenVinoEngine", refuse)
    engine = open_backend(invert)
    assert engine.backend.startswith("ONNX Runtime")
    assert np.array_equal(engine.infer(picture(8, 6)[None]), 255 - picture(8, 6)[None])


def test_auto_does_not_take_openvino_where_it_gives_another_picture(
    monkeypatch: pytest.MonkeyPatch, invert: Path
) -> None:
    class Wrong(OpenVinoEngine):
        def infer(self, batch: Pixels) -> Pixels:
            return super().infer(batch) // 2

    monkeypatch.setattr("runtime.engines.OpenVinoEngine", Wrong)
    engine = open_backend(invert)
    assert engine.backend.startswith("ONNX Runtime")
    assert "OpenVINO's output differs: " in engine.backend
    engine.close()
