"""The command, with real engines, files and encoders; how long things take is not what is tested."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest

from benchmarks.harness import memory
from benchmarks.harness.engines import frames, labels
from benchmarks.harness.results import read_results
from benchmarks.harness.scenarios import Load
from benchmarks.latency import end_to_end as through
from benchmarks.latency.__main__ import drift, main, parse
from benchmarks.latency.layers import Job, compute, scheduled
from runtime.engines import open_backend
from runtime.frame import Frame
from runtime.sources.video import VideoSource
from tests.conftest import picture
from tests.standin import install_stand_in, write_plan
from tests.virtual import KnownEngine

QUICK = ["--size", "64x48", "--min-queries", "8", "--min-duration", "0.05", "--warm-up", "0"]


def test_two_engines_in_four_layers(invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = tmp_path / "out" / "latency.json"
    arguments = ["--engine", f"{invert}@cpu", "--engine", f"{invert}@openvino", *QUICK, "--rate", "100"]
    assert main([*arguments, "--json", str(result)]) == 0
    shown = capsys.readouterr().out
    assert "| invert.onnx@cpu | ONNX Runtime" in shown
    assert "| invert.onnx@openvino | OpenVINO" in shown
    document = read_results(result)
    assert str(tmp_path) not in result.read_text()
    results = document["results"]
    assert [each["name"] for each in results["engines"]] == ["invert.onnx@cpu", "invert.onnx@openvino"]
    for each in results["engines"]:
        assert each["host"]["n"] >= 8
        assert each["compute"] == {"not_available": "not told apart on a CPU"}
        live = each["pipeline"]["live"]
        assert live["latency"]["n"] + live["dropped"] == each["pipeline"]["frames"]
        assert len(each["pipeline"]["rounds_fps"]) == len(each["throughput"]["rounds_fps"]) == 3
        assert each["memory"]["host"]["peak_mib"] > each["memory"]["host"]["before_mib"]
        assert each["scheduled"]["latency"]["n"] >= 8
    (found,) = results["ratios"]
    assert (found["engine"], found["over"]) == ("invert.onnx@openvino", "invert.onnx@cpu")
    assert found["rounds"] >= 20


def test_one_engine_alone_and_no_pipeline(invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", f"{invert}@cpu", *QUICK, "--no-pipeline", "--source", "synthetic"]) == 0
    shown = capsys.readouterr().out
    assert "64x48, synthetic" in shown
    assert "of rest" not in shown, "it takes no turns"
    assert "frame-out ends" not in shown


def test_what_is_wrong_is_one_line(invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", "none.onnx"]) == 4
    assert main(["--engine", f"{invert}@magic"]) == 2
    assert main(["--engine", str(invert), "--source", "none.mp4"]) == 3
    (tmp_path / "file").touch()
    assert main(["--engine", str(invert), "--json", str(tmp_path / "file" / "a.json")]) == 6
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error"] * 4


@pytest.mark.parametrize("wrong", [["--size", "64"], ["--min-queries", "0"], ["--rate", "-1"], ["--warm-up", "-1"]])
def test_options_that_make_no_sense(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse(wrong)
    assert ending.value.code == 2


def test_engines_are_told_apart_in_tables() -> None:
    assert labels(["a/x.onnx", "a/x.onnx", "a/y.onnx@cpu"]) == ["x.onnx", "x.onnx #2", "y.onnx@cpu"]
    assert labels(["a/x.onnx", "b/x.onnx", "b/x.onnx@cpu"]) == ["a/x.onnx", "b/x.onnx", "b/x.onnx@cpu"]


def test_drift_is_told() -> None:
    assert drift(np.linspace(10, 20, 40).reshape(-1, 1)) == pytest.approx(18.8 / 11.2, rel=0.02)
    assert drift(np.full((40, 4), 3.0)) == 1
    assert drift(np.ones((7, 4))) is None


def test_frames_are_the_clips_and_of_the_size_that_is_asked(clip: Path) -> None:
    taken = frames("clip", (64, 48), count=5)
    assert [each.shape for each in taken] == [(1, 48, 64, 3)] * 5
    assert len({each.tobytes() for each in taken}) == 5
    assert len(frames(str(clip), (32, 24))) == 10
    assert np.array_equal(frames("synthetic", (8, 8)), frames("synthetic", (8, 8)))


def test_a_gpu_tells_what_it_computes(invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    engine = open_backend(write_plan(invert, tmp_path))
    told = compute(engine, Job(names=["p"], frames=frames("synthetic", (64, 48)), load=Load(min_queries=5)))
    assert told["n"] == 5
    engine.close()


def test_a_stall_in_the_schedule_is_told() -> None:
    engine = KnownEngine(lambda query: 300.0 if query == 20 else 0.1)
    job = Job(
        names=["known"],
        frames=[np.zeros((1, 8, 8, 3), np.uint8)],
        load=Load(min_queries=60, min_duration_s=0),
        rate_fps=100,
    )
    told = scheduled(job, engine)
    assert told["late"] >= 29, "30 are due while it stands still; a slow machine adds to them"
    assert told["latency"]["p90_ms"] > 100


# The pipeline


@pytest.fixture
def paced(tmp_path: Path) -> Path:
    path = tmp_path / "paced.mp4"
    through.write_clip(path, [picture(64, 48, seed=seed)[None] for seed in range(3)], count=12)
    return path


def test_the_clip_holds_so_many_frames(paced: Path) -> None:
    with_frames = VideoSource(paced)
    assert sum(1 for _ in with_frames) == 12
    with_frames.close()


def test_a_live_source_is_paced_and_every_frame_counts_from_when_it_was_due(paced: Path, tmp_path: Path) -> None:
    began = perf_counter()
    told = through.live(KnownEngine(5.0), paced, tmp_path / "out.mp4", rate_fps=40)
    assert perf_counter() - began >= 11 / 40, "twelve frames take so long at least"
    assert len(told.latency_ms) + told.dropped == 12
    assert told.latency_ms.min() >= 5


def test_the_time_of_the_decoder_counts(paced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(VideoSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                sleep(0.03)
                yield replace(frame, captured_at=perf_counter())

    monkeypatch.setattr(through, "VideoSource", Slow)
    waits = [perf_counter() - frame.captured_at for frame in through.PacedSource(paced, rate_fps=10)]
    assert len(waits) == 12
    assert min(waits) >= 0.03


def test_an_engine_that_is_too_slow_drops_frames_and_they_are_counted(paced: Path, tmp_path: Path) -> None:
    told = through.live(KnownEngine(100.0), paced, tmp_path / "out.mp4", rate_fps=100)
    assert told.dropped > 0
    assert len(told.latency_ms) + told.dropped == 12


def test_a_file_job_drops_nothing_and_its_rate_counts_everything(paced: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    fps = through.file_job_fps(KnownEngine(20.0), paced, out)
    assert 0 < fps < 50, "the engine alone gives 50"
    with_frames = VideoSource(out)
    assert sum(1 for _ in with_frames) == 12
    with_frames.close()


# Memory


def test_the_memory_of_an_engine_is_that_of_a_process_of_its_own(invert: Path) -> None:
    ballast = bytearray(300 << 20)  # of this process, which is not the engine's
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    told = memory.peak(f"{invert}@cpu", size=(64, 48))
    assert 0 < told["host"]["before_mib"] < told["host"]["peak_mib"] < 300
    assert told["device"]["not_available"]


def test_larger_frames_take_more_of_it(invert: Path) -> None:
    small, large = (memory.peak(f"{invert}@cpu", size=size)["host"] for size in ((64, 48), (4096, 2160)))
    frame_mib = 4096 * 2160 * 3 / (1 << 20)
    assert large["peak_mib"] - small["peak_mib"] > 1.5 * frame_mib


def test_a_process_that_cannot_tell_is_not_zero(tmp_path: Path) -> None:
    told = memory.peak(str(tmp_path / "none.onnx"), size=(64, 48))
    assert "did not" in told["host"]["not_available"]


def test_what_the_bench_leaves_behind_is_nothing(invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    shutil.copy(invert, here / "invert.onnx")
    monkeypatch.chdir(here)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    assert main(["--engine", "invert.onnx@cpu", *QUICK]) == 0
    assert [path.name for path in here.iterdir()] == ["invert.onnx"]
    assert list(tmp_path.glob("deblur-*")) == []
