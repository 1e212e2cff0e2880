"""Progress of an export: a line for each step, and one line that is replaced on a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from export import progress as module
from export.__main__ import main
from export.progress import Progress
from export.step_cache import StepCache
from tests.export.conftest import write_run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_export_prints_a_line_with_the_time_of_each_step(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--precision"]
    assert main([*arguments, "fp32,int8"]) == 0
    *lines, last = capsys.readouterr().err.splitlines()
    assert last.startswith(f"engines {tmp_path / 'out'}; to restore a clip: deblur --engine")
    assert all(re.fullmatch(r"[\w ]+: (\d+\.\d s|cached)", line) for line in lines), lines
    steps = [line.partition(":")[0] for line in lines]
    assert steps[:4] == ["read_pairs", "read_calibration_frames", "export_to_onnx", "fuse_convolutions"]
    assert {"choose_calibration_method", "quantize_within_budget_int8", "measure_score of deblur_int8"} < set(steps)
    assert main([*arguments, "fp32"]) == 0
    assert capsys.readouterr().err.count("export_to_onnx: cached") == 1


def test_a_long_step_counts_in_a_log_and_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress()
    with progress.step("search"):
        for done in range(1, 8):
            now[0] += 10.0
            progress.count(done, 7)
    assert capsys.readouterr().err.splitlines() == ["search: 3 of 7, 30 s", "search: 6 of 7, 60 s", "search: 70.0 s"]
    terminal = Terminal()
    monkeypatch.setattr(module.sys, "stderr", terminal)
    with progress.step("search"):
        now[0] += 10.0
        progress.count(1, 7)
    erase = "\r\x1b[K"
    shown = [f"{erase}search ...", f"{erase}search: 1 of 7, 10 s", f"{erase}search: 10.0 s\n"]
    assert terminal.getvalue() == "".join(shown)


def test_a_step_that_fails_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(module.sys, "stderr", terminal)

    def fail() -> bytes:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        StepCache(tmp_path, base="").get("step", {}, fail)
    assert terminal.getvalue().endswith("\r\x1b[K")
