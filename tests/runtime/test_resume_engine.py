"""A resumed run takes the library and the engine file that the first part was begun with, and refuses any others."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from runtime import engines
from runtime.batch.__main__ import main as run_batch
from runtime.engines import ParallelEngine, available_cores, open_backend
from runtime.engines.base import Engine
from runtime.files import partial_name
from runtime.resume import Job
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import write_engine
from tests.rig.held import Held
from tests.runtime.test_web_queue import write_clip

FRAMES = 110


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chunks of 25 frames, each large enough that a killed run leaves some."""
    path = tmp_path_factory.mktemp("clip") / "long.mp4"
    write_clip(path, size=(320, 192), frames=FRAMES, fps=5)
    return path


def begin(*arguments: str | Path, module: str = "runtime.video") -> None:
    """Kill a run after 90 frames."""
    run = Held(module, arguments, at=90)
    run.wait_for_frame(90)
    run.kill()


def command(clip: Path, engine: Path, out: Path, *more: str) -> list[str]:
    return ["--source", str(clip), "--out", str(out), "--engine", str(engine), "--guard", "off", *more]


def frames_of(path: Path) -> list[np.ndarray]:
    return [frame.pixels for frame in open_source(str(path))]


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let a trial fail: the run must not depend on its result."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a resumed run compares nothing")

    monkeypatch.setattr(engines, name, fail)


def test_library_of_the_first_part_is_used_whatever_a_trial_would_say(
    long_clip: Path, invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    out = tmp_path / "a.mp4"
    begin(*command(long_clip, invert, out, "--provider", "openvino"))
    job = Job.read(str(out))
    assert job
    assert job.provider == "openvino"
    forbid(monkeypatch, "median_ms_per_frame")
    assert main(command(long_clip, invert, out, "--resume")) == 0
    shown = capsys.readouterr().err
    assert "OpenVINO" in shown
    assert int(shown.partition("resume  after ")[2].split()[0]) >= 25
    assert len(frames_of(out)) == FRAMES


def test_library_that_the_user_asks_for_must_be_that_of_the_first_part(
    long_clip: Path, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.mp4"
    begin(*command(long_clip, invert, out, "--provider", "cpu"))
    before = partial_name(out).read_bytes()
    assert main(command(long_clip, invert, out, "--resume", "--provider", "openvino")) == 2
    assert "the unfinished output was begun with --provider cpu" in capsys.readouterr().err
    assert partial_name(out).read_bytes() == before


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_mode_and_threads_may_change(mode: str, long_clip: Path, invert: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.mp4"
    begin(*command(long_clip, invert, out, "--provider", "cpu", "--threads", "1"))
    assert main(command(long_clip, invert, out, "--resume", "--mode", mode, "--threads", "2")) == 0
    assert len(frames_of(out)) == FRAMES


def test_engine_of_a_folder_is_that_of_the_first_part(
    long_clip: Path, invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder, out = tmp_path / "engines", tmp_path / "a.mp4"
    folder.mkdir()
    # Without a description an engine of a folder is not chosen: its loss is not known.
    shutil.copy(Path(engines.BUNDLED).with_name("edge-s_int8_cpu.onnx"), folder / "b 2.onnx")
    begin(*command(long_clip, folder, out, "--provider", "cpu"))
    shutil.copy(engines.BUNDLED, folder / "a.onnx")
    forbid(monkeypatch, "choose_engine")
    assert main(command(long_clip, folder, out, "--resume")) == 0
    assert len(frames_of(out)) == FRAMES
    begin(*command(long_clip, folder / "b 2.onnx", tmp_path / "c.mp4", "--provider", "cpu"))
    (folder / "b 2.onnx").unlink()
    assert main(command(long_clip, folder, tmp_path / "c.mp4", "--resume")) == 2
    assert "the engine of the unfinished output is missing" in capsys.readouterr().err


def test_other_engine_and_options_that_change_pixels_are_another_job(
    long_clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, out = write_engine(tmp_path / "e.onnx"), tmp_path / "a.mp4"
    begin(*command(long_clip, engine, out, "--provider", "cpu"))
    before = partial_name(out).read_bytes()
    options = (["--tile", "128x128"], ["--side-by-side"], ["--skip-sharp", "auto"], ["--guard", "on"])
    for more in options:
        assert main([*command(long_clip, engine, out, "--resume"), *more]) == 2
        assert "the unfinished output is of another job" in capsys.readouterr().err
    write_engine(engine, nodes=[helper.make_node("Identity", ["x0"], ["y"])])  # of the same name and description
    assert main(command(long_clip, engine, out, "--resume")) == 2
    assert "the unfinished output is of another job" in capsys.readouterr().err
    assert partial_name(out).read_bytes() == before


def test_batch_continues_with_the_library_of_the_first_part(
    long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino")
    arguments = ["--source", str(long_clip), "--out", str(tmp_path)]
    begin(*arguments, "--provider", "openvino", module="runtime.batch")
    monkeypatch.setattr(engines, "median_ms_per_frame", lambda *_: [1.0, 2.0])  # ONNX Runtime is faster now
    assert run_batch(arguments) == 0
    shown = capsys.readouterr().err
    assert "OpenVINO" in shown.split("engine  ")[-1]
    assert int(shown.partition("long.mp4: ")[2].split()[0]) < FRAMES
    assert len(frames_of(tmp_path / "long.mp4")) == FRAMES


@pytest.mark.skipif(available_cores() < 2, reason="with one core no two frames run at the same time")
def test_trial_measures_the_mode_that_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    compared: list[Engine] = []

    def compare(candidates: list[Engine], _frame: object) -> list[float]:
        compared.extend(candidates)
        return [1.0, 2.0]

    monkeypatch.setattr(engines, "median_ms_per_frame", compare)
    open_backend(engines.BUNDLED, mode="throughput").close()
    assert isinstance(compared[0], ParallelEngine)
    assert compared[0].slots > 1
    compared.clear()
    open_backend(engines.BUNDLED, mode="latency").close()
    assert compared[0].slots == 1
