"""The layers of what a frame costs, each measured by itself."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.engines import resolved
from benchmarks.harness.memory import peak
from benchmarks.harness.scenarios import Load, at_rate, offline
from benchmarks.harness.statistics import summary
from benchmarks.latency import end_to_end as through
from benchmarks.power.metering import metered
from runtime.engines.base import Engine
from runtime.engines.tensorrt import TensorRtEngine
from runtime.frame import Pixels

ROUNDS = 3
"""Of throughput: each engine in turn, so often."""
LIVE_SHARE = 0.6
"""Of the file job's rate: what a live source is played at, unless a rate is given."""
_CLIP_FRAMES = (16, 256)


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that decides what is run."""

    names: list[str]
    frames: list[Pixels]
    load: Load
    rate_fps: float | None = None
    """Of queries at fixed times, and of the live source."""
    threads: int = 0
    pipeline: bool = True


def compute(engine: Engine, job: Job) -> dict[str, Any]:
    """What the device itself says it computed, copies left out."""
    if not isinstance(engine, TensorRtEngine):
        on_cpu = getattr(engine, "provider", None) in {"cpu", "openvino"}
        return {"not_available": "not told apart on a CPU" if on_cpu else "its library does not tell it"}
    return asdict(summary(engine.compute_ms(job.frames[0], count=job.load.min_queries)))


def throughput(job: Job, engines: Sequence[Engine]) -> list[dict[str, Any]]:
    """Frames over wall time of each engine alone, all slots busy; the power is that of its last round."""
    duration_s = max(job.load.min_duration_s / ROUNDS, 0.1)
    rates: list[list[float]] = [[] for _ in engines]
    powers: list[dict[str, Any]] = [{} for _ in engines]
    for _ in range(ROUNDS):
        for index, engine in enumerate(engines):
            with metered() as power:
                done, seconds = offline(engine, job.frames, duration_s=duration_s)
            rates[index].append(round(done / seconds, 3))
            powers[index] = power.result(done)
    return [
        {"throughput": {"engine_fps": float(np.median(each)), "rounds_fps": each}, "power": power}
        for each, power in zip(rates, powers, strict=True)
    ]


def scheduled(job: Job, engine: Engine) -> dict[str, Any]:
    """Queries at fixed times, their latency from when they were due."""
    assert job.rate_fps
    say(f"queries at fixed times, {job.rate_fps:g} a second")
    engine.infer(job.frames[0])  # wakes its threads
    queries = max(job.load.min_queries, round(job.load.min_duration_s * job.rate_fps))
    told = at_rate(engine, job.frames, rate_fps=job.rate_fps, queries=queries)
    return {
        "rate_fps": job.rate_fps,
        "latency": asdict(summary(told.latency_ms)),
        "from_sent": asdict(summary(told.from_sent_ms)),
        "late": told.late,
        "held": told.held,
    }


def pipelines(job: Job, engines: Sequence[Engine], rounds: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    """File jobs of all engines in turn, then a live source for each."""
    slowest_ms = max(float(np.median(each)) for each in rounds)
    low, high = _CLIP_FRAMES
    count = int(np.clip(1e3 * job.load.min_duration_s / ROUNDS / slowest_ms, low, high))
    with tempfile.TemporaryDirectory(prefix="deblur-") as folder:
        clip, out = Path(folder) / "clip.mp4", Path(folder) / "out.mp4"
        through.write_clip(clip, job.frames, count=count)
        say(f"file job: {count} frames through decoder, engine and encoder")
        rates = [[round(through.file_job_fps(engine, clip, out), 3) for engine in engines] for _ in range(ROUNDS)]
        told = []
        for index, engine in enumerate(engines):
            fps = float(np.median([each[index] for each in rates]))
            rate = job.rate_fps or round(LIVE_SHARE * fps, 2)
            say(f"live source at {rate:g} frames a second")
            live = through.live(engine, clip, out, rate_fps=rate)
            told.append(
                {
                    "frames": count,
                    "file_fps": fps,
                    "rounds_fps": [each[index] for each in rates],
                    "live": {
                        "rate_fps": rate,
                        "dropped": live.dropped,
                        "latency": asdict(summary(live.latency_ms)) if len(live.latency_ms) else None,
                    },
                }
            )
    return told


def memory(job: Job, name: str, engine: Engine) -> dict[str, Any]:
    """Of a process that opens this engine alone."""
    height, width = job.frames[0].shape[1:3]
    return peak(resolved(name, engine), size=(width, height), options=[str(job.threads)])


def say(line: str) -> None:
    """What is being done goes to standard error; results are for standard output."""
    print(line, file=sys.stderr, flush=True)
