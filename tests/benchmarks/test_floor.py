"""The file job against its floor, with known costs and with FFmpeg itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from time import sleep

import numpy as np
import pytest

from benchmarks.harness.processes import JobCost, JobError
from benchmarks.harness.results import RESULTS, read_results
from benchmarks.latency import floor, layers
from benchmarks.latency.floor import (
    FrameCost,
    compare_with_floor,
    measure_engine,
    measure_in_process,
    measure_transcode,
)
from benchmarks.latency.table import format_tables
from tests.conftest import make_image, write_clip
from tests.virtual import KnownEngine


def cost(wall_ms: float, cpu_ms: float) -> FrameCost:
    return FrameCost(wall_ms=wall_ms, cpu_ms=cpu_ms)


def test_ratios_are_those_of_the_rounds() -> None:
    pipelines, engines = [cost(30, 60), cost(40, 90), cost(36, 80)], [cost(10, 20), cost(10, 20), cost(20, 40)]
    result = compare_with_floor(pipelines, engines, [cost(10, 20)] * 3)
    assert result["rounds_cpu_ratio"] == [1.5, 2.25, 1.3333]
    assert result["cpu_ratio"] == 1.5
    assert result["rounds_wall_ratio"] == [1.5, 2, 1.2]
    assert result["wall_ratio"] == 1.5
    assert result["pipeline"] == {"wall_ms": 36, "cpu_ms": 80}


def test_waiting_costs_wall_time_only() -> None:
    result = measure_in_process(lambda: sleep(0.2) or 2)
    assert result.wall_ms >= 100 > result.cpu_ms


def test_an_engine_alone_restores_every_frame() -> None:
    engine = KnownEngine(5.0)
    assert measure_engine(engine, [np.zeros((1, 8, 8, 3), np.uint8)], count=6).wall_ms >= 5
    assert engine.queries == 6


def test_starting_ffmpeg_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip of 100 frames is read once, and then four times: 300 frames more."""
    costs = {"0": JobCost(wall_s=1.2, cpu_s=2.1, messages=""), "3": JobCost(wall_s=1.8, cpu_s=3.9, messages="")}
    monkeypatch.setattr(floor, "run_job", lambda commands: costs[commands[0][commands[0].index("-stream_loop") + 1]])
    monkeypatch.setattr("benchmarks.harness.transcode.find_ffmpeg", lambda: "ffmpeg")
    write_clip(tmp_path / "a.mp4")
    result = measure_transcode(tmp_path / "a.mp4", tmp_path / "b.mp4", frames=100)
    assert (result.wall_ms, result.cpu_ms) == pytest.approx((2, 6))
    costs["3"] = costs["0"]
    with pytest.raises(JobError, match="larger frames"):
        measure_transcode(tmp_path / "a.mp4", tmp_path / "b.mp4", frames=100)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_ffmpeg_transcodes_a_clip(tmp_path: Path) -> None:
    images = [make_image(320, 240, seed=seed)[None] for seed in range(4)]
    layers.write_clip(tmp_path / "a.mp4", images, count=32)
    result = measure_transcode(tmp_path / "a.mp4", tmp_path / "b.mp4", frames=32)
    assert result.cpu_ms > 0


def test_without_ffmpeg_the_pipeline_is_measured_and_the_reason_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    images = [make_image(64, 48, seed=seed)[None] for seed in range(4)]
    job = layers.Job(names=["known"], frames=images, load=layers.Load(min_queries=1, min_duration_s=0))
    (result,) = layers.measure_pipelines(job, [KnownEngine(1.0)], [np.ones((1, 1))])
    assert result["floor"] == {"not_available": "ffmpeg is not installed"}
    assert result["file_fps"] > 0


def test_results_without_a_floor_are_still_shown() -> None:
    path = next(iter(sorted(RESULTS.rglob("latency.json"))))
    results = read_results(path)["results"]
    for engine in results["engines"]:
        engine["pipeline"].pop("floor", None)
    assert "Pipeline and its floor" not in format_tables(results)
    results["engines"][0]["pipeline"]["floor"] = compare_with_floor([cost(30, 60)], [cost(10, 20)], [cost(10, 20)])
    shown = format_tables(results)
    assert "| processor | 60 | 20 | 20 | 1.50 | 1.50 to 1.50 |" in shown
    results["engines"][1]["pipeline"]["floor"] = {"not_available": "ffmpeg is not installed"}
    assert "floor is not available: ffmpeg is not installed (" in format_tables(results)
