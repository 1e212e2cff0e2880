"""The command with real engines, files and encoders; the measured times themselves are not tested."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
import pytest

from benchmarks.harness import memory
from benchmarks.harness.engines import label_engines, load_frames, pin_provider, split_provider
from benchmarks.harness.results import read_results
from benchmarks.harness.scenarios import Load
from benchmarks.latency import end_to_end
from benchmarks.latency.__main__ import compute_drift, main, parse
from benchmarks.latency.floor import measure_in_process
from benchmarks.latency.layers import Job, measure_compute, measure_server
from runtime.engines import BUNDLED, open_backend
from runtime.frame import Frame
from runtime.sources.video import VideoSource
from tests.conftest import make_image
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
    assert [engine["name"] for engine in results["engines"]] == ["invert.onnx@cpu", "invert.onnx@openvino"]
    for engine in results["engines"]:
        assert engine["host"]["n"] >= 8
        assert engine["compute"] == {"not_available": "not measured separately on a CPU"}
        live = engine["pipeline"]["live"]
        assert live["latency"]["n"] + live["dropped"] == engine["pipeline"]["frames"]
        assert len(engine["pipeline"]["rounds_fps"]) == len(engine["throughput"]["rounds_fps"]) == 3
        assert engine["memory"]["host"]["peak_mib"] > engine["memory"]["host"]["before_mib"]
        assert engine["scheduled"]["latency"]["n"] >= 8
        floor = engine["pipeline"]["floor"]
        assert "not_available" in floor or len(floor["rounds_cpu_ratio"]) == 3
    (slowdown,) = results["ratios"]
    assert (slowdown["engine"], slowdown["over"]) == ("invert.onnx@openvino", "invert.onnx@cpu")
    assert slowdown["rounds"] >= 20


def test_one_engine_alone_and_no_pipeline(invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", f"{invert}@cpu", *QUICK, "--no-pipeline", "--source", "synthetic"]) == 0
    shown = capsys.readouterr().out
    assert "Frames of 64x48, source: synthetic" in shown
    assert "alternating runs" not in shown
    assert "end to end latency ends" not in shown


def test_engines_for_planes_get_planes(capsys: pytest.CaptureFixture[str]) -> None:
    planes = str(BUNDLED.with_name("edge-s_int8_cpu_yuv420.onnx"))
    assert main(["--engine", f"{planes}@cpu", *QUICK, "--min-queries", "2", "--rate", "50"]) == 0
    assert capsys.readouterr().out.count("| edge-s_int8_cpu_yuv420.onnx@cpu |") >= 3, "single stream, server, layers"
    assert main(["--engine", f"{planes}@cpu", *QUICK, "--size", "63x48"]) == 2
    assert "even width and height" in capsys.readouterr().err


def test_errors_are_one_line_each(invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", "none.onnx"]) == 4
    assert main(["--engine", f"{invert}@magic"]) == 2
    assert main(["--engine", str(invert), "--source", "none.mp4"]) == 3
    (tmp_path / "file").touch()
    assert main(["--engine", str(invert), "--json", str(tmp_path / "file" / "a.json")]) == 6
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error"] * 4


@pytest.mark.parametrize("wrong", [["--size", "64"], ["--min-queries", "0"], ["--rate", "-1"], ["--warm-up", "-1"]])
def test_invalid_options_exit_with_code_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse(wrong)
    assert ending.value.code == 2


def test_labels_of_engines_are_unique() -> None:
    assert label_engines(["a/x.onnx", "a/x.onnx", "a/y.onnx@cpu"]) == ["x.onnx", "x.onnx #2", "y.onnx@cpu"]
    assert label_engines(["a/x.onnx", "b/x.onnx", "b/x.onnx@cpu"]) == ["a/x.onnx", "b/x.onnx", "b/x.onnx@cpu"]


def test_a_path_may_hold_an_at_sign(tmp_path: Path) -> None:
    path = tmp_path / "a@b.onnx"
    path.touch()
    assert split_provider(str(path)) == (str(path), "")
    assert split_provider(f"{path}@cpu") == (str(path), "cpu")
    assert split_provider("edge-s@openvino") == ("edge-s", "openvino")


def test_a_pinned_name_opens_the_same_provider(invert: Path) -> None:
    engine = open_backend(invert, provider="openvino")
    assert pin_provider(f"{invert}@auto", engine) == f"{invert}@openvino"
    engine.close()


def test_drift_compares_the_last_quarter_with_the_first() -> None:
    assert compute_drift(np.linspace(10, 20, 40).reshape(-1, 1)) == pytest.approx(18.8 / 11.2, rel=0.02)
    assert compute_drift(np.full((40, 4), 3.0)) == 1
    assert compute_drift(np.ones((7, 4))) is None


def test_frames_come_from_the_source_in_the_requested_size(clip: Path) -> None:
    images = load_frames("clip", (64, 48), count=5)
    assert [image.shape for image in images] == [(1, 48, 64, 3)] * 5
    assert len({image.tobytes() for image in images}) == 5
    assert len(load_frames(str(clip), (32, 24))) == 10
    assert np.array_equal(load_frames("synthetic", (8, 8)), load_frames("synthetic", (8, 8)))


def test_a_plan_reports_its_compute_time(invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_stand_in(monkeypatch)
    engine = open_backend(write_plan(invert, tmp_path))
    compute = measure_compute(
        engine, Job(names=["p"], frames=load_frames("synthetic", (64, 48)), load=Load(min_queries=5))
    )
    assert compute["n"] == 5
    assert pin_provider("a.plan", engine) == "a.plan", "plans have no choice of providers"
    engine.close()


def test_a_stall_delays_the_queries_that_wait_for_it() -> None:
    engine = KnownEngine(lambda query: 300.0 if query == 20 else 0.1)
    job = Job(
        names=["known"],
        frames=[np.zeros((1, 8, 8, 3), np.uint8)],
        load=Load(min_queries=60, min_duration_s=0),
        rate_fps=100,
    )
    server = measure_server(job, engine)
    assert server["late"] >= 29, "30 queries are due during the stall; a slow machine adds to them"
    assert server["latency"]["p90_ms"] > 100


# The pipeline


@pytest.fixture
def paced(tmp_path: Path) -> Path:
    path = tmp_path / "paced.mp4"
    end_to_end.write_clip(path, [make_image(64, 48, seed=seed)[None] for seed in range(3)], count=12)
    return path


def test_the_clip_has_the_requested_number_of_frames(paced: Path) -> None:
    video = VideoSource(paced)
    assert sum(1 for _ in video) == 12
    video.close()


def test_a_live_source_is_paced_and_latency_counts_from_when_a_frame_was_due(paced: Path, tmp_path: Path) -> None:
    began = perf_counter()
    run = end_to_end.play_live(KnownEngine(5.0), paced, tmp_path / "out.mp4", rate_fps=40)
    assert perf_counter() - began >= 11 / 40, "the twelfth frame is due after that time"
    assert len(run.latency_ms) + run.dropped == 12
    assert run.latency_ms.min() >= 5


def test_latency_includes_the_time_of_the_decoder(paced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(VideoSource):
        def __iter__(self) -> Iterator[Frame]:
            for frame in super().__iter__():
                sleep(0.03)
                yield replace(frame, captured_at=perf_counter())

    monkeypatch.setattr(end_to_end, "VideoSource", Slow)
    waits = [perf_counter() - frame.captured_at for frame in end_to_end.PacedSource(paced, rate_fps=10)]
    assert len(waits) == 12
    assert min(waits) >= 0.03


def test_dropped_frames_of_a_slow_engine_are_counted(paced: Path, tmp_path: Path) -> None:
    run = end_to_end.play_live(KnownEngine(100.0), paced, tmp_path / "out.mp4", rate_fps=100)
    assert run.dropped > 0
    assert len(run.latency_ms) + run.dropped == 12


def test_a_file_job_drops_no_frames_and_its_rate_includes_decoder_and_encoder(paced: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    cost = measure_in_process(lambda: end_to_end.run_file_job(KnownEngine(20.0), paced, out))
    assert cost.wall_ms > 20, "the engine alone takes that long"
    video = VideoSource(out)
    assert sum(1 for _ in video) == 12
    video.close()


# Memory


def test_memory_of_an_engine_is_measured_in_a_separate_process(invert: Path) -> None:
    ballast = bytearray(300 << 20)  # memory of this process, which must not count
    ballast[:: 1 << 12] = b"x" * len(ballast[:: 1 << 12])
    result = memory.measure_peak_memory(f"{invert}@cpu", size=(64, 48))
    assert 0 < result["host"]["before_mib"] < result["host"]["peak_mib"] < 300
    assert result["device"]["not_available"]


def test_larger_frames_take_more_memory(invert: Path) -> None:
    small, large = (memory.measure_peak_memory(f"{invert}@cpu", size=size)["host"] for size in ((64, 48), (4096, 2160)))
    frame_mib = 4096 * 2160 * 3 / (1 << 20)
    assert large["peak_mib"] - small["peak_mib"] > 1.5 * frame_mib


def test_a_failed_memory_measurement_is_not_zero(tmp_path: Path) -> None:
    result = memory.measure_peak_memory(str(tmp_path / "none.onnx"), size=(64, 48))
    assert "did not finish" in result["host"]["not_available"]


def test_no_temporary_files_remain(invert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
