"""Latency percentiles of a run of any length in constant memory."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

_LOWEST_MS = 1e-3
_STEP = 1.01
"""Ratio of the limits of a bucket."""
_BUCKETS = 2100
"""Number of buckets; the last is at 1e-3 ms * 1.01**2100, about 20 minutes."""


class Latencies:
    """A histogram of durations in buckets that are 1 % apart.

    Percentiles are within 0.5 % of the exact value for any number of durations; the maximum is exact.
    """

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0
        self.max_ms = 0.0
        self.sum_ms = 0.0

    def add(self, duration_ms: float) -> None:
        """Add a duration in milliseconds."""
        bucket = round(math.log(max(duration_ms, _LOWEST_MS) / _LOWEST_MS) / math.log(_STEP))
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self.count += 1
        self.max_ms = max(self.max_ms, duration_ms)
        self.sum_ms += duration_ms

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Add the duration of the body, unless it ends with an exception."""
        start = perf_counter()
        yield
        self.add(1e3 * (perf_counter() - start))

    def percentile_ms(self, percent: float) -> float:
        """Return the smallest duration that at least `percent` of the durations do not exceed; 0 without durations."""
        rank = math.ceil(self.count * percent / 100)
        cumulative = 0
        for bucket, count in enumerate(self._counts):
            cumulative += count
            if count and cumulative >= rank:
                return min(self.max_ms, _LOWEST_MS * _STEP**bucket)
        return 0.0

    def summary(self) -> dict[str, float]:
        """Return p50, p90, p99 and max in milliseconds, rounded to microseconds."""
        values = {f"p{percent}": self.percentile_ms(percent) for percent in (50, 90, 99)} | {"max": self.max_ms}
        return {name: round(value, 3) for name, value in values.items()}
