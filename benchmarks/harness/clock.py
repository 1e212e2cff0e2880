"""The clock that everything is measured with, and whether it can be trusted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.errors import NumbersError

COARSEST = 0.01
"""Ticks longer than this share of what is measured are refused."""
LARGEST_SKEW = 1e-3
"""By which it may run faster or slower than the machine's other counter. NTP slews by 0.5e-3 at most."""
_READINGS = 2000
_MOST_READINGS = 2_000_000


class Clock(Protocol):
    """Nanoseconds since some moment; `reference_ns` is a counter that nothing adjusts."""

    def now_ns(self) -> int: ...

    def reference_ns(self) -> int: ...

    def sleep(self, seconds: float) -> None: ...


class WallClock:
    """`time.perf_counter_ns`, beside the raw counter of the hardware where the system shows it."""

    def now_ns(self) -> int:
        return time.perf_counter_ns()

    def reference_ns(self) -> int:
        raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
        return time.monotonic_ns() if raw is None else time.clock_gettime_ns(raw)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class ClockFacts:
    """What one clock can tell apart, and what a reading costs: each duration holds the cost of one."""

    resolution_ns: int
    cost_ns: int


def examine(clock: Clock) -> ClockFacts:
    """The least step and the mean cost of reading; raises NumbersError if it stands still or runs backwards."""
    began, last, steps, count = clock.now_ns(), 0, set[int](), 0
    last = began
    while count < _READINGS or (len(steps) < 2 and count < _MOST_READINGS):
        now = clock.now_ns()
        if now < last:
            raise NumbersError("the clock runs backwards", hint="measure on a machine with a monotonic clock")
        if now > last:
            steps.add(now - last)
        last, count = now, count + 1
    if not steps:
        raise NumbersError("the clock stands still", hint="measure on a machine with a working clock")
    return ClockFacts(resolution_ns=min(steps), cost_ns=round((last - began) / count))


def require_fine(facts: ClockFacts, shortest_ms: float) -> None:
    """Raise NumbersError if durations as short as this are only a few ticks of the clock."""
    ticks = facts.resolution_ns > 4 * facts.cost_ns  # shorter steps are what a reading takes
    if ticks and facts.resolution_ns / 1e6 > COARSEST * shortest_ms:
        raise NumbersError(
            f"the clock ticks every {facts.resolution_ns / 1e6:g} ms, too coarse for {shortest_ms:.3g} ms",
            hint="measure larger frames, or on another system",
        )


class Skew:
    """How fast the clock runs against the reference, from when this was made."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now_ns(), clock.reference_ns()

    def checked(self) -> float:
        """Relative difference so far, positive where the clock is fast; raises NumbersError beyond LARGEST_SKEW."""
        elapsed = np.subtract((self._clock.now_ns(), self._clock.reference_ns()), self._began)
        skew = float(elapsed[0] / elapsed[1] - 1) if elapsed[1] > 0 else 0.0
        if abs(skew) > LARGEST_SKEW and elapsed[1] > 1e9:  # shorter, the readings themselves differ as much
            raise NumbersError(
                f"the clock runs {abs(skew):.2%} {'fast' if skew > 0 else 'slow'}",
                hint="let the machine's time settle, and measure again",
            )
        return skew
