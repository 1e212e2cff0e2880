"""The comparison with vs-mlrt: jobs, checks, results, and what is said where VapourSynth is missing."""

from __future__ import annotations

import json
import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from benchmarks.harness.processes import run_job
from benchmarks.harness.results import read_results
from benchmarks.harness.transcode import encode_command, read_x264_settings
from benchmarks.peers.vs_mlrt import __main__ as command
from benchmarks.peers.vs_mlrt.float_model import write_float_model
from benchmarks.peers.vs_mlrt.jobs import Job, describe_vapoursynth, list_peer_jobs, list_toolkit_jobs
from benchmarks.report import main as report
from runtime.engines import BUNDLED, open_backend
from tests.conftest import ROOT, make_image, write_clip

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


@pytest.fixture
def vapoursynth() -> str:
    """Return the Python that has VapourSynth, as docs/benchmarks.md installs it."""
    python = ROOT / command.PYTHON
    if not python.exists():
        pytest.skip("VapourSynth is not installed as docs/benchmarks.md says")
    return str(python)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "moving.mp4")


def write_frames(path: Path, count: int = 40, **changes: Any) -> Path:
    write_clip(path, pts=[512 * index for index in range(count)], **changes)
    return path


class KnownJob(Job):
    """A job that says it took 10 ms of wall time and `cpu_ms` of processor time a frame, and half a second to start."""

    cpu_ms: float

    def run(self, clip: Path, out: Path) -> tuple[float, float, str]:
        super().run(clip, out)
        frames, _ = command.count_frames(clip)
        return 0.5 + frames / 100, 0.5 + frames * self.cpu_ms / 1e3, ""


def make_job(name: str, *filters: str, role: str = "peer", cpu_ms: float = 5) -> Job:
    """Return a job of FFmpeg alone with filters."""

    def commands(source: Path, out: Path) -> list[list[str]]:
        chain = ["-vf", ",".join(filters)] if filters else []
        return [encode_command(["-i", str(source), *chain], out, frame_rate=Fraction(25))]

    job = KnownJob(name=name, network="edge-s", role=role, make_commands=commands)  # type: ignore[arg-type]
    object.__setattr__(job, "cpu_ms", cpu_ms)
    return job


def test_without_vapoursynth_the_reason_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert command.main(["--python", sys.executable, "--json", str(tmp_path / "a.json")]) == 0
    assert command.main(["--python", str(tmp_path / "none")]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("skipped: ") for line in lines)
    assert "No module named 'vapoursynth'" in lines[0]
    assert not (tmp_path / "a.json").exists()


def test_without_ffmpeg_the_reason_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert command.main([]) == 0
    assert capsys.readouterr().err.startswith("skipped: ffmpeg is not installed; ")


@needs_ffmpeg
def test_unusable_clips_are_one_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "describe_vapoursynth", lambda _: {"ov": "1"})
    (tmp_path / "text.mp4").write_text("no video")
    write_frames(tmp_path / "short.mp4", 9)
    write_frames(tmp_path / "odd.mp4", size=(63, 48), pix_fmt="yuv444p")
    for name in ("none.mp4", "text.mp4", "short.mp4", "odd.mp4"):
        assert command.main(["--clip", str(tmp_path / name)]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error"] * 4
    assert "9 frames are too few" in lines[2]


@needs_ffmpeg
def test_jobs_are_checked_timed_and_compared(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [make_job("inverted", "negate", role="toolkit")]
    peers = [
        make_job("inverted, too", "negate", "negate", "negate", cpu_ms=10),
        make_job("idle"),
        make_job("cut", "negate", "crop=32:32"),
        make_job("broken", "no_such_filter"),
    ]
    monkeypatch.setattr(command, "describe_vapoursynth", lambda _: {"vapoursynth": "81", "ov": "v17"})
    monkeypatch.setattr("benchmarks.peers.vs_mlrt.float_model.write_float_model", lambda _, __: None)
    monkeypatch.setattr(command, "list_toolkit_jobs", lambda _: jobs)
    monkeypatch.setattr(command, "list_peer_jobs", lambda *_, **__: peers)
    path = tmp_path / "results" / "file_jobs.json"
    options = ["--clip", str(clip), "--sharp", str(clip), "--network", "edge-s", "--rounds", "2", "--json", str(path)]
    assert command.main(options) == 0
    results = read_results(path)["results"]
    by_name = {job["name"]: job for job in results["jobs"]}
    statuses = {name: job["status"] for name, job in by_name.items()}
    assert statuses == {
        "inverted": "timed",
        "inverted, too": "timed",
        "idle": "refused",
        "cut": "not available",
        "broken": "not available",
    }
    assert "no nearer" in by_name["idle"]["reason"]
    assert "other frames" in by_name["cut"]["reason"]
    assert "ffmpeg failed" in by_name["broken"]["reason"]
    cost = {"fps": 100, "rounds_fps": [100, 100], "cpu_ms": 5, "rounds_cpu_ms": [5, 5], "whole_s": 0.9}
    assert by_name["inverted"]["cost"] == cost
    assert by_name["inverted"]["check"]["psnr_db"] < 20 < by_name["inverted, too"]["check"]["agreement_db"]
    assert [(ratio["of"], ratio["ratio"]) for ratio in results["ratios"]] == [("wall time", 1), ("processor time", 2)]
    assert {ratio["slower"] for ratio in results["ratios"]} == {"inverted, too"}
    assert results["notes"] == []
    shown = capsys.readouterr().out
    assert "| edge-s | idle | - | - | - | - | - |" in shown
    assert str(tmp_path) not in path.read_text()
    assert report([str(path), "--out", str(tmp_path / "page")]) == 0
    assert "Comparison with vs-mlrt" in (tmp_path / "page" / "report.md").read_text()


@needs_ffmpeg
def test_the_toolkit_and_ffmpeg_encode_with_the_same_settings(clip: Path, tmp_path: Path) -> None:
    job = next(job for job in list_toolkit_jobs("edge-s") if job.name.endswith("ONNX Runtime"))
    _, cpu_s, messages = job.run(clip, tmp_path / "ours.mp4")
    assert cpu_s > 0
    assert "edge-s" in messages
    run_job([encode_command(["-i", str(clip)], tmp_path / "ffmpeg.mp4", frame_rate=Fraction(25))])
    ours, theirs = (read_x264_settings(tmp_path / name) for name in ("ours.mp4", "ffmpeg.mp4"))
    assert ours["crf"] == "18.0"
    assert ours == theirs


def test_another_encoder_has_no_settings_of_x264(tmp_path: Path) -> None:
    assert read_x264_settings(write_frames(tmp_path / "a.mp4", codec="mpeg4")) == {}


def test_the_float_model_restores_as_the_engine_does(tmp_path: Path) -> None:
    model = tmp_path / "edge-s.onnx"
    write_float_model(BUNDLED.with_name("edge-s"), model)
    frame = make_image(64, 48)
    rgb = np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1)[None], np.float32) / 255
    (output,) = onnxruntime.InferenceSession(str(model)).run(None, {"blurred": rgb})
    restored = np.rint(255 * output[0]).astype(np.uint8).transpose(1, 2, 0)[..., ::-1]
    engine = open_backend(BUNDLED.with_name("edge-s_fp32.onnx"), provider="cpu")
    expected = engine.infer(frame[None])[0]
    engine.close()
    assert np.abs(restored.astype(int) - expected).max() <= 1


def test_vapoursynth_restores_a_clip(vapoursynth: str, clip: Path, tmp_path: Path) -> None:
    versions = describe_vapoursynth(vapoursynth)
    model = tmp_path / "edge-s.onnx"
    write_float_model(BUNDLED.with_name("edge-s"), model)
    jobs = list_peer_jobs(
        "edge-s", model, python=vapoursynth, plugins=list(versions), streams=2, frame_rate=Fraction(25)
    )
    for job in jobs:
        job.run(clip, tmp_path / "out.mp4")
        assert command.count_frames(tmp_path / "out.mp4") == (40, (64, 48))


def test_the_versions_of_the_script_are_json(vapoursynth: str) -> None:
    assert json.dumps(describe_vapoursynth(vapoursynth))
