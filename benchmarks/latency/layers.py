"""The layers of the cost of a frame, each measured separately: compute, server scenario, throughput, pipeline, memory.

Every function returns the part of `latency` in schema.json that is named after its layer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.engines import convert_frames, pin_provider
from benchmarks.harness.memory import measure_peak_memory
from benchmarks.harness.processes import JobError
from benchmarks.harness.scenarios import THROUGHPUT_ROUNDS, Load, run_offline, run_server
from benchmarks.harness.statistics import summarize
from benchmarks.latency.end_to_end import play_live, run_file_job, write_clip
from benchmarks.latency.floor import (
    FrameCost,
    compare_with_floor,
    measure_engine,
    measure_in_process,
    measure_transcode,
)
from benchmarks.power.metering import monitor_power
from runtime.cli import say
from runtime.engines.base import Engine
from runtime.engines.tensorrt import TensorRtEngine
from runtime.engines.timing import PAUSE_S
from runtime.frame import Pixels, Size

LIVE_SHARE = 0.6
"""Default rate of the live source, as a share of the rate of the file job."""
_MIN_CLIP_FRAMES, _MAX_CLIP_FRAMES = 16, 256


@dataclass(frozen=True, kw_only=True)
class Job:
    """Settings of a run."""

    names: list[str]
    """Engines as `open_named_engine` takes them."""
    frames: list[Pixels]
    """uint8[1, H, W, 3] BGR each, of one size."""
    load: Load
    source: str = "other"
    """Origin of the frames, as a result file states it."""
    rate_fps: float | None = None
    """Rate of the server scenario and of the live source; None omits the first and chooses the second."""
    threads: int = 0
    pipeline: bool = True

    def frames_for(self, engine: Engine) -> list[Pixels]:
        """Return the frames in the form that an engine takes."""
        return convert_frames(self.frames, engine)

    @property
    def size(self) -> Size:
        """Width and height of the frames."""
        height, width = self.frames[0].shape[1:3]
        return width, height


def measure_compute(engine: Engine, job: Job) -> dict[str, Any]:
    """Return the time that the device itself reports for computing, without copies of frames."""
    if not isinstance(engine, TensorRtEngine):
        is_on_cpu = engine.provider in {"cpu", "openvino"}
        return {"not_available": "not measured separately on a CPU" if is_on_cpu else "its library does not report it"}
    return asdict(summarize(engine.compute_ms(job.frames_for(engine)[0], count=job.load.min_queries)))


def measure_throughput(job: Job, engines: Sequence[Engine]) -> list[dict[str, Any]]:
    """Run the offline scenario on every engine, in interleaved rounds; the power is that of the last round."""
    duration_s = max(job.load.min_duration_s / THROUGHPUT_ROUNDS, 0.1)
    rates_fps: list[list[float]] = [[] for _ in engines]
    powers: list[dict[str, Any]] = [{} for _ in engines]
    frames = [job.frames_for(engine) for engine in engines]
    for _ in range(THROUGHPUT_ROUNDS):
        for index, engine in enumerate(engines):
            with monitor_power() as monitor:
                result = run_offline(engine, frames[index], duration_s=duration_s)
            rates_fps[index].append(round(result.fps, 3))
            powers[index] = monitor.summarize(result.frames + result.warm_up_frames)
    return [
        {"throughput": {"engine_fps": float(np.median(rounds_fps)), "rounds_fps": rounds_fps}, "power": power}
        for rounds_fps, power in zip(rates_fps, powers, strict=True)
    ]


def measure_server(job: Job, engine: Engine) -> dict[str, Any]:
    """Run the server scenario at the rate of the job."""
    assert job.rate_fps
    say(f"server scenario: {job.rate_fps:g} queries per second")
    frames = job.frames_for(engine)
    engine.infer(frames[0])  # wakes the threads of the engine
    queries = max(job.load.min_queries, round(job.load.min_duration_s * job.rate_fps))
    run = run_server(engine, frames, rate_fps=job.rate_fps, queries=queries)
    return {
        "rate_fps": job.rate_fps,
        "latency": asdict(summarize(run.latency_ms)),
        "from_sent": asdict(summarize(run.service_ms)),
        "late": run.late_queries,
        "held": run.is_rate_sustained,
    }


def measure_pipelines(
    job: Job, engines: Sequence[Engine], times_ms: Sequence[NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """Run interleaved file jobs of all engines with their floor, then a live source for each engine.

    `times_ms`: single stream times of each engine, which decide the length of the clip.
    """
    slowest_ms = max(float(np.median(times)) for times in times_ms)
    frames = 1e3 * job.load.min_duration_s / THROUGHPUT_ROUNDS / slowest_ms
    count = int(np.clip(frames, _MIN_CLIP_FRAMES, _MAX_CLIP_FRAMES))
    results = []
    with tempfile.TemporaryDirectory(prefix="deblur-") as folder:
        clip, out = Path(folder) / "clip.mp4", Path(folder) / "out.mp4"
        write_clip(clip, job.frames, count=count)
        say(f"file job: {count} frames through decoder, engine and encoder")
        costs, floors = _measure_file_jobs(job, engines, clip, out, count=count)
        for engine, engine_costs, floor in zip(engines, costs, floors, strict=True):
            rounds_fps = [round(1e3 / cost.wall_ms, 3) for cost in engine_costs]
            file_fps = float(np.median(rounds_fps))
            live_fps = job.rate_fps or round(LIVE_SHARE * file_fps, 2)
            say(f"live source: {live_fps:g} frames per second")
            live = play_live(engine, clip, out, rate_fps=live_fps)
            results.append(
                {
                    "frames": count,
                    "file_fps": file_fps,
                    "rounds_fps": rounds_fps,
                    "floor": floor,
                    "live": {
                        "rate_fps": live_fps,
                        "dropped": live.dropped,
                        "latency": asdict(summarize(live.latency_ms)) if len(live.latency_ms) else None,
                    },
                }
            )
    return results


def _measure_file_jobs(
    job: Job, engines: Sequence[Engine], clip: Path, out: Path, *, count: int
) -> tuple[list[list[FrameCost]], list[dict[str, Any]]]:
    """Run file jobs of all engines, the engines alone, and FFmpeg's transcode, in alternating rounds.

    Returns the cost of the file jobs of each engine in each round, and `floor` of schema.json for each engine.
    """
    pipelines: list[list[FrameCost]] = [[] for _ in engines]
    alone: list[list[FrameCost]] = [[] for _ in engines]
    transcodes: list[FrameCost] = []
    reason = ""
    frames = [job.frames_for(engine) for engine in engines]
    for _ in range(THROUGHPUT_ROUNDS):
        try:
            transcodes += [] if reason else [measure_transcode(clip, out, frames=count)]
        except JobError as error:
            reason = str(error)
        for index, engine in enumerate(engines):
            sleep(PAUSE_S)
            alone[index].append(measure_engine(engine, frames[index], count=count))
            sleep(PAUSE_S)
            pipelines[index].append(measure_in_process(partial(run_file_job, engine, clip, out)))
    if reason:
        return pipelines, [{"not_available": reason}] * len(engines)
    floors = [compare_with_floor(*costs, transcodes) for costs in zip(pipelines, alone, strict=True)]
    return pipelines, floors


def measure_memory(job: Job, name: str, engine: Engine) -> dict[str, Any]:
    """Measure the peak memory of a separate process that opens only this engine."""
    return measure_peak_memory(pin_provider(name, engine), size=job.size, options=[str(job.threads)])
