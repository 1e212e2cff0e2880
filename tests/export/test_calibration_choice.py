"""Choice of the calibration method: by frames that the export does not report on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from calib_data import CALIBRATION, HELD_OUT
from export.__main__ import main
from export.calibration_set import CALIBRATION_FRAMES, CalibrationSet
from tests.export.conftest import BUNDLED_RUN


def test_the_pairs_do_not_change_the_calibration(tmp_path: Path) -> None:
    """Two sets of pairs, on which different methods lose least, give the same calibration."""
    calibrations = []
    for name in ("camera_0.jpg", "chelsea_0.jpg"):
        pairs = tmp_path / name
        for kind in ("blur", "sharp"):
            (pairs / kind).mkdir(parents=True)
            shutil.copy(HELD_OUT / kind / name, pairs / kind)
        out = tmp_path / "out"
        assert main([str(BUNDLED_RUN), "--out", str(out), "--pairs", str(pairs), "--precision", "int8"]) == 0
        report = json.loads((out / "report.json").read_text())
        calibrations.append((report["calibration"], report["engines"]["int8"]["spec"]["calibration_sha256"]))
    assert calibrations[0] == calibrations[1]


def test_methods_are_compared_on_frames_that_are_not_calibrated_with(tmp_path: Path) -> None:
    frames = CalibrationSet(CALIBRATION)
    assert (len(frames.frames), len(frames.comparison_frames)) == (CALIBRATION_FRAMES, 5)
    assert not any(np.array_equal(one, other) for one in frames.frames for other in frames.comparison_frames)
    for path in sorted(CALIBRATION.iterdir())[:9]:
        shutil.copy(path, tmp_path)
    few = CalibrationSet(tmp_path)
    assert (len(few.frames), len(few.comparison_frames)) == (9, 9)


@pytest.mark.parametrize("method", ["minmax"])
def test_a_named_method_needs_no_comparison(
    method: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(BUNDLED_RUN), "--out", str(tmp_path), "--pairs", str(pairs), "--precision", "int8"]
    assert main([*arguments, "--calib-method", method]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["calibration"]["method"], report["calibration"]["agreement_db"]) == (method, {})
    assert "choose_calibration_method" not in capsys.readouterr().err
    assert f"(`calibrate_ranges`): {method}\n\nConvolutions" in (tmp_path / "report.md").read_text()


def test_too_few_frames_are_refused_before_anything_is_computed(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(BUNDLED_RUN), "--out", str(tmp_path / "out"), "--pairs", str(pairs)]
    arguments += ["--calib", str(pairs / "sharp")]
    assert main([*arguments, "--precision", "fp32,fp16"]) == 2
    errors = capsys.readouterr().err
    assert "too few calibration frames (3 frames, 3 of them different)" in errors
    assert "export_to_onnx" not in errors
    assert main([*arguments, "--precision", "fp32"]) == 0
    assert "export_to_onnx" in capsys.readouterr().err
