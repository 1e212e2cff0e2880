"""The blur score, and `--skip-sharp`, which writes sharp frames unchanged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.blur_score import SHARP_BLUR_SCORE, blur_score
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import ROOT, write_engine
from tests.runtime.test_pipeline import Kept
from tests.standin import install_stand_in, write_plan

HELD_OUT = ROOT / "calib_data" / "held_out"


def test_score_grows_with_blur() -> None:
    sharp = cv2.imread(str(HELD_OUT / "sharp" / "chelsea_2.jpg"))
    values = [blur_score(sharp), *(blur_score(cv2.blur(sharp, (width, 1))) for width in (3, 7, 15))]
    assert values == sorted(values)
    assert values[0] < SHARP_BLUR_SCORE < values[2]
    assert blur_score(np.full((40, 40, 3), 90, np.uint8)) == 1.0


def test_sharp_photographs_lie_below_the_threshold() -> None:
    for path in sorted((HELD_OUT / "sharp").glob("*_[012].jpg")):  # those with long blur may be enlarged photographs
        assert blur_score(cv2.imread(str(path))) < SHARP_BLUR_SCORE


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Sharp, blurred, sharp, blurred, ..."""
    (tmp_path / "mixed").mkdir()
    sharp = cv2.imread(str(HELD_OUT / "sharp" / "chelsea_2.jpg"))
    for index in range(6):
        frame = cv2.blur(sharp, (15, 1)) if index % 2 else sharp
        cv2.imwrite(str(tmp_path / "mixed" / f"{index}.png"), frame)
    return tmp_path / "mixed"


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_sharp_frames_are_written_unchanged_and_in_order(
    mode: str, mixed: Path, invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runtime.engines.tensorrt import TensorRtEngine

    install_stand_in(monkeypatch)
    sink = Kept()
    engine = TensorRtEngine(write_plan(invert, tmp_path), mode=mode)
    pipeline = Pipeline(
        open_source(str(mixed)), engine, sink, RunOptions(guard=False, skip_blur_score=SHARP_BLUR_SCORE)
    )
    pipeline.run()
    assert pipeline.frames_skipped == 3
    for index, (frame, source) in enumerate(zip(sink.frames, open_source(str(mixed)), strict=True)):
        assert np.array_equal(frame.pixels, 255 - source.pixels if index % 2 else source.pixels)


def test_through_the_command_line(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = write_engine(tmp_path / "invert.onnx")
    arguments = ["--engine", str(engine), "--source", str(mixed), "--out", "null", "--guard", "off"]
    assert main([*arguments, "--skip-sharp", "auto"]) == 0
    assert "6 written, 0 dropped, 3 sharp already" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "sharp already" not in capsys.readouterr().err
    with pytest.raises(SystemExit) as ending:
        main([*arguments, "--skip-sharp", "2"])
    assert ending.value.code == 2
