"""A file job against its floor: the cost of the engine alone plus that of FFmpeg's transcode of the same clip.

The pipeline cannot cost less than the sum, and adds conversions, copies, queues and checks to it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from benchmarks.harness.processes import JobError, run_job
from benchmarks.harness.scenarios import keep_slots_busy
from benchmarks.harness.transcode import encode_command, read_frame_rate
from runtime.engines.base import Engine
from runtime.frame import Pixels

_TRANSCODED_FRAMES = 256
"""Approximate number of frames whose transcode is timed: short clips are read several times."""


@dataclass(frozen=True, kw_only=True)
class FrameCost:
    """Milliseconds a frame of wall time, and of the processor time of all cores, user and system."""

    wall_ms: float
    cpu_ms: float

    def to_json(self) -> dict[str, float]:
        """Return a cost in a result file."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def measure_in_process(work: Callable[[], int]) -> FrameCost:
    """Return the cost of work of this process, which returns its number of frames."""
    began_s, began_cpu_s = perf_counter(), process_time()
    frames = work()
    wall_s, cpu_s = perf_counter() - began_s, process_time() - began_cpu_s
    return FrameCost(wall_ms=1e3 * wall_s / frames, cpu_ms=1e3 * cpu_s / frames)


def measure_engine(engine: Engine, frames: Sequence[Pixels], *, count: int) -> FrameCost:
    """Return the cost of `count` frames with all slots of an engine busy; `frames` as the engine takes them."""
    queue = itertools.islice(itertools.cycle(frames), count)
    return measure_in_process(lambda: sum(1 for _ in keep_slots_busy(engine, queue)))


def measure_transcode(clip: Path, out: Path, *, frames: int) -> FrameCost:
    """Return the cost of decoding and encoding a clip of so many frames with FFmpeg, without starting and ending it.

    Raises JobError if FFmpeg is not installed or fails, or if starting it took longer than the clip.
    """
    rate = read_frame_rate(clip)
    repeats = math.ceil(_TRANSCODED_FRAMES / frames)
    once, more = (
        run_job([encode_command(["-stream_loop", str(count), "-i", str(clip)], out, frame_rate=rate)])
        for count in (0, repeats)
    )
    cost = FrameCost(
        wall_ms=1e3 * (more.wall_s - once.wall_s) / (repeats * frames),
        cpu_ms=1e3 * (more.cpu_s - once.cpu_s) / (repeats * frames),
    )
    if min(cost.wall_ms, cost.cpu_ms) <= 0:
        raise JobError("starting FFmpeg took longer than the clip: measure with larger frames")
    return cost


def compare_with_floor(
    pipelines: Sequence[FrameCost], engines: Sequence[FrameCost], transcodes: Sequence[FrameCost]
) -> dict[str, Any]:
    """Return `floor` of schema.json from the costs of each round: medians, and the ratios of the rounds."""
    facts: dict[str, Any] = {
        name: FrameCost(
            wall_ms=float(np.median([cost.wall_ms for cost in costs])),
            cpu_ms=float(np.median([cost.cpu_ms for cost in costs])),
        ).to_json()
        for name, costs in (("pipeline", pipelines), ("engine", engines), ("transcode", transcodes))
    }
    rounds = list(zip(pipelines, engines, transcodes, strict=True))
    for kind in ("wall_ms", "cpu_ms"):
        ratios = [
            getattr(pipeline, kind) / (getattr(engine, kind) + getattr(transcode, kind))
            for pipeline, engine, transcode in rounds
        ]
        name = kind.removesuffix("_ms")
        facts[f"{name}_ratio"] = round(float(np.median(ratios)), 4)
        facts[f"rounds_{name}_ratio"] = [round(ratio, 4) for ratio in ratios]
    return facts
