"""Impossible results are replaced by their input and counted, or end the run with code 8."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from runtime.engines import BUNDLED, open_engine
from runtime.guard import OutputGuard, find_fault
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import DEMO_CLIP, ROOT, make_image

FRAME = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))


@pytest.fixture(params=[np.nan, np.inf], ids=["nan", "inf"])
def broken(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The bundled FP32 engine with one weight that is NaN or infinite, as after a half-precision overflow."""
    model = onnx.load(BUNDLED.with_name("edge-s_fp32.onnx"))
    bias = next(tensor for tensor in model.graph.initializer if tensor.dims == [32])
    values = numpy_helper.to_array(bias).copy()
    values[3] = request.param
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "broken.onnx")
    return tmp_path / "broken.onnx"


@pytest.mark.parametrize("provider", ["cpu", "openvino"])
def test_nan_is_replaced_by_the_input(
    provider: str, broken: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--engine", str(broken), "--provider", provider, "--source", str(clip)]
    stats = tmp_path / "stats.json"
    assert main([*arguments, "--out", f"{tmp_path}/frames/", "--stats", str(stats)]) == 0
    assert "warning: 10 impossible results were replaced by their input" in capsys.readouterr().err
    assert json.loads(stats.read_text())["frames"]["rejected"] == 10
    for path, frame in zip(sorted((tmp_path / "frames").iterdir()), open_source(str(clip)), strict=True):
        assert np.array_equal(cv2.imread(str(path)), frame.pixels)
    assert main([*arguments, "--out", "null", "--strict"]) == 8
    assert "as after NaN" in capsys.readouterr().err


@pytest.mark.parametrize("place", range(16))
def test_every_position_inside_a_patch_is_examined(place: int) -> None:
    """A wrong channel blackens one pixel of each 4x4 square."""
    hurt = FRAME.copy()
    hurt[place // 4 :: 4, place % 4 :: 4] = 0
    assert "blank" in find_fault(FRAME, hurt)


def test_nan_in_a_part_of_the_frame_is_found() -> None:
    hurt = FRAME.copy()
    hurt[40:60, 40:60] = 0
    assert "blank" in find_fault(FRAME, hurt)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda frame: np.where(frame > 128, 255, frame), "is saturated"),
        (lambda frame: frame + np.array([40, 0, 0]), "blue moved by +"),
        (lambda frame: frame - np.array([0, 0, 30]), "red moved by -"),
    ],
)
def test_saturation_and_casts_are_found(spoil: object, words: str) -> None:
    assert words in find_fault(FRAME, np.clip(spoil(FRAME.astype(int)), 0, 255).astype(np.uint8))


def test_possible_results_are_accepted() -> None:
    engine = open_engine(provider="cpu")
    guard = OutputGuard()
    for index, frame in enumerate(open_source(str(DEMO_CLIP))):
        if index % 10 == 0:
            restored = engine.infer(frame.pixels[None])[0]
            assert guard(frame.pixels, restored) is restored
    for value in (0, 255):
        flat = np.full((40, 40, 3), value, np.uint8)
        assert not find_fault(flat, flat)
    for size in ((1, 1), (3, 2)):
        assert not find_fault(make_image(*size), make_image(*size))
    assert guard.rejected == 0
