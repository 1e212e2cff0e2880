"""Steps about the memory of frames: the same plan with frames in each kind of memory that CPU and GPU both reach."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from benchmarks.gpu_check.driver import ManagedBuffer
from benchmarks.gpu_check.engine import MIN_QUERIES, summarize_ms
from benchmarks.gpu_check.gpu import open_with_memory, read_frames
from benchmarks.gpu_check.kinds import CLIP
from benchmarks.gpu_check.steps import CheckError, Report
from benchmarks.harness.scenarios import Load, run_single_stream, warm_up
from runtime.engines import open_backend
from runtime.engines.cuda import probe

KINDS = {
    "copied": "page-locked memory of the CPU, copied to and from memory of the GPU",
    "mapped": "page-locked memory of the CPU that the GPU reads and writes",
    "managed": "memory that the driver moves between CPU and GPU",
}


def measure_memory(report: Report, *, plan: str, memory: str, duration_s: float) -> None:
    """Measure the latency of a plan with its frames in one kind of memory; the output must stay the same."""
    frames = read_frames(24, CLIP)
    report.add(memory=memory, runtime_uses="mapped" if probe().integrated else "copied")
    with contextlib.closing(open_backend(plan)) as engine:
        expected = engine.infer(frames[0])
    allocate = ManagedBuffer if memory == "managed" else None
    changed = open_with_memory(Path(plan), shared=memory != "copied", allocate=allocate)
    with contextlib.closing(changed) as engine:
        if not np.array_equal(engine.infer(frames[0]), expected):
            raise CheckError(f"frames in {memory} memory give another result")
        warm_up(engine, frames, min_s=0)
        load = Load(min_queries=MIN_QUERIES, min_duration_s=duration_s)
        (times_ms,) = run_single_stream([engine], frames, load)
    report.add(**summarize_ms("host", times_ms))
