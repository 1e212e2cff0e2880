"""Several frames at once on the CPU, each on threads of its own."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

from runtime.engines.onnx import OnnxEngine
from runtime.frame import Pixels
from runtime.spec import EngineSpec

_MOST_AT_ONCE = 8
"""Each frame under way has memory of its own; on more cores each has several threads."""


class ParallelEngine:
    """An ONNX file on ONNX Runtime's CPU provider, for files, where a frame's own latency does not matter.

    Threads that share a frame wait for each other at every layer, and convolutions of one frame leave cores
    without work: two frames on a thread each take less time than one after the other on two threads (a fifth
    less here, more on more cores). The same pictures come out. `threads=0` uses every core.
    """

    provider: Final = "cpu"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        cores = threads or cores_there()
        at_once = min(cores, _MOST_AT_ONCE)
        self._engine = OnnxEngine(path, threads=cores // at_once)
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="engine")
        self._results: deque[Future[Pixels]] = deque()
        self.slots = at_once + 1  # so that a thread finds its next frame when it has done one
        self.spec: EngineSpec = self._engine.spec
        self.backend = f"{self._engine.backend} ({at_once} frames at once)"

    def infer(self, batch: Pixels) -> Pixels:
        return self._engine.infer(batch)

    def submit(self, batch: Pixels) -> None:
        self._results.append(self._pool.submit(self._engine.infer, batch))

    def collect(self) -> Pixels:
        return self._results.popleft().result()

    def close(self) -> None:
        self._pool.shutdown()
        self._engine.close()


def cores_there() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0))
