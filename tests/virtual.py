"""A clock that a test moves, and an engine with a known latency."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from runtime.engines.base import SynchronousEngine
from runtime.frame import Pixels
from runtime.spec import EngineSpec

FRAMES = [np.zeros((1, 8, 8, 3), np.uint8)]


class VirtualClock:
    """Clock whose time passes by `reading_ns` per reading; readings are multiples of `tick_ns`."""

    def __init__(self, *, reading_ns: int = 50, tick_ns: int = 1, speed: float = 1.0) -> None:
        self.time_ns = 1_000_000_000
        self.reading_ns, self.tick_ns, self.speed = reading_ns, tick_ns, speed

    def now_ns(self) -> int:
        self.time_ns += self.reading_ns
        return int(self.time_ns * self.speed) // self.tick_ns * self.tick_ns

    def reference_ns(self) -> int:
        return self.time_ns

    def sleep(self, seconds: float) -> None:
        self.time_ns += round(1e9 * seconds)


class KnownEngine(SynchronousEngine):
    """Engine that returns its batch after `latency_ms(n)` for the n-th one, on a virtual or on the real clock."""

    def __init__(self, latency_ms: Callable[[int], float] | float, clock: VirtualClock | None = None) -> None:
        super().__init__()
        self.spec, self.backend, self.provider = EngineSpec(name="known"), "sleep", "cpu"
        self.queries = 0
        self.closed = False
        self._latency_ms = latency_ms if callable(latency_ms) else lambda _: latency_ms
        self._clock = clock

    def infer(self, batch: Pixels) -> Pixels:
        seconds = self._latency_ms(self.queries) / 1e3
        self.queries += 1
        if self._clock:
            self._clock.sleep(seconds)
        else:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                time.sleep(0)
        return batch

    def close(self) -> None:
        self.closed = True
