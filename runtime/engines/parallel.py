"""Several frames at the same time on the CPU, each on threads of its own."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from runtime.engines.base import closed_error
from runtime.engines.onnx import OnnxEngine
from runtime.frame import Pixels
from runtime.spec import EngineSpec

MAX_FRAMES_AT_ONCE = 8
"""Largest number of frames in work, because each needs memory of its own; with more cores each has several threads."""


class ParallelEngine:
    """An ONNX file on ONNX Runtime's CPU provider, for files, where the latency of a single frame does not matter.

    Threads that share a frame wait for each other at every layer, and some convolutions do not occupy all cores. Two
    frames with one thread each therefore take less time than one after the other with two threads (a fifth less on
    two cores, more on more cores). The results are identical. `threads`: of the CPU; 0 for all cores.
    """

    provider: Literal["cpu"] = "cpu"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        cores = threads or available_cores()
        workers = min(cores, MAX_FRAMES_AT_ONCE)
        self._engine = OnnxEngine(path, threads=cores // workers)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="engine")
        self._results: deque[Future[Pixels]] = deque()
        self._is_closed = False
        self.slots = workers + 1  # one frame waits, so that a worker finds it as soon as it is free
        self.spec: EngineSpec = self._engine.spec
        self.backend = f"{self._engine.backend} ({workers} frames at once)"

    def infer(self, batch: Pixels) -> Pixels:
        return self._engine.infer(batch)

    def submit(self, batch: Pixels) -> None:
        if self._is_closed:
            raise closed_error(self.spec)
        self._results.append(self._pool.submit(self._engine.infer, batch))

    def collect(self) -> Pixels:
        return self._results.popleft().result()

    def close(self) -> None:
        self._is_closed = True
        self._pool.shutdown()
        self._engine.close()


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
