"""The clock of all measurements, and checks of its resolution, its direction and its speed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.errors import NumbersError

MAX_TICK_SHARE = 0.01
"""Longest tick of the clock that is accepted, as a share of the shortest measured duration."""
MAX_SKEW = 1e-3
"""Largest accepted relative difference of speed from the reference counter. NTP adjusts by at most 0.5e-3."""
_READINGS = 2000
_MAX_READINGS = 2_000_000


class Clock(Protocol):
    """Source of time in nanoseconds since an arbitrary moment."""

    def now_ns(self) -> int:
        """Return the time of the clock that measurements use."""
        ...

    def reference_ns(self) -> int:
        """Return the time of a counter that no time synchronization adjusts."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class WallClock:
    """`time.perf_counter_ns`, with the raw hardware counter as the reference where the system has one."""

    def now_ns(self) -> int:
        return time.perf_counter_ns()

    def reference_ns(self) -> int:
        raw = getattr(time, "CLOCK_MONOTONIC_RAW", None)
        return time.monotonic_ns() if raw is None else time.clock_gettime_ns(raw)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class ClockFacts:
    """Resolution of a clock and the duration of one reading. Every measured duration includes one reading."""

    resolution_ns: int
    cost_ns: int


def examine_clock(clock: Clock) -> ClockFacts:
    """Measure the smallest step of a clock and the mean duration of a reading.

    Raises NumbersError if the clock stands still or runs backwards.
    """
    began, steps, count = clock.now_ns(), set[int](), 0
    last = began
    while count < _READINGS or (len(steps) < 2 and count < _MAX_READINGS):
        now = clock.now_ns()
        if now < last:
            raise NumbersError("the clock runs backwards", hint="measure on a machine with a monotonic clock")
        if now > last:
            steps.add(now - last)
        last, count = now, count + 1
    if not steps:
        raise NumbersError("the clock stands still", hint="measure on a machine with a working clock")
    return ClockFacts(resolution_ns=min(steps), cost_ns=round((last - began) / count))


def require_fine_clock(facts: ClockFacts, shortest_ms: float) -> None:
    """Raise NumbersError if a duration of `shortest_ms` is only a few ticks of the clock."""
    is_tick = facts.resolution_ns > 4 * facts.cost_ns  # a shorter step is the duration of a reading, not a tick
    if is_tick and facts.resolution_ns / 1e6 > MAX_TICK_SHARE * shortest_ms:
        raise NumbersError(
            f"the clock ticks every {facts.resolution_ns / 1e6:g} ms, too coarse for {shortest_ms:.3g} ms",
            hint="measure larger frames, or measure on another system",
        )


class ClockSkew:
    """Difference of speed between a clock and its reference counter, measured from construction on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now_ns(), clock.reference_ns()

    def measure(self) -> float:
        """Return the relative difference so far, positive if the clock is fast; raise NumbersError beyond MAX_SKEW."""
        elapsed = np.subtract((self._clock.now_ns(), self._clock.reference_ns()), self._began)
        skew = float(elapsed[0] / elapsed[1] - 1) if elapsed[1] > 0 else 0.0
        # Within less than a second, the two readings themselves may be that far apart.
        if abs(skew) > MAX_SKEW and elapsed[1] > 1e9:
            raise NumbersError(
                f"the clock runs {abs(skew):.2%} {'fast' if skew > 0 else 'slow'}",
                hint="wait until time synchronization has settled, and measure again",
            )
        return skew
