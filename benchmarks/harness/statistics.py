"""What many durations say: percentiles, spread, and whether one engine is slower than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

LEAST_EFFECT = 0.03
"""A difference smaller than this is of no interest: other things about a machine change a figure as much."""
LEAST_ROUNDS = 10
"""With fewer no verdict is given: the bootstrap of a median is too narrow then."""
_RESAMPLES = 2000
Verdict = Literal["slower", "faster", "alike", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Durations in milliseconds. A percentile is the smallest value that so many per cent do not exceed.

    It is None where it would be nothing but the maximum, as the 99th of fewer than 101 values is.
    """

    n: int
    mean_ms: float
    min_ms: float
    p50_ms: float
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float
    mad_ms: float
    """Median of the absolute deviations from the median."""
    iqr_ms: float
    """From the first to the third quartile."""


def summary(durations_ms: Sequence[float] | NDArray[np.float64]) -> Summary:
    """Of any number of durations, at least one, to the tenth of a microsecond."""
    values = np.sort(np.asarray(durations_ms, np.float64).ravel())
    p50, p25, p75 = (percentile(values, share) for share in (50, 25, 75))
    tails = {f"p{share}_ms": _beyond(values, share) for share in (90, 95, 99)}
    rounded = {name: None if value is None else round(value, 4) for name, value in tails.items()}
    return Summary(
        n=len(values),
        mean_ms=round(float(values.mean()), 4),
        min_ms=round(float(values[0]), 4),
        p50_ms=round(p50, 4),
        max_ms=round(float(values[-1]), 4),
        mad_ms=round(percentile(np.abs(values - p50), 50), 4),
        iqr_ms=round(p75 - p25, 4),
        **rounded,
    )


def percentile(values: NDArray[np.float64], share: float) -> float:
    """The smallest value that `share` per cent do not exceed (nearest rank: one that occurred, none made up)."""
    return float(np.percentile(values, share, method="inverted_cdf"))


def _beyond(values: NDArray[np.float64], share: int) -> float | None:
    return percentile(values, share) if len(values) * (100 - share) > 100 else None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times longer one engine takes than another, with a 95 % interval.

    `slower` or `faster`: the interval excludes 1 and the ratio is beyond LEAST_EFFECT. `alike`: the whole interval
    is within it. Otherwise `undecided`: more rounds are needed.
    """

    ratio: float
    low: float
    high: float
    rounds: int
    verdict: Verdict


def ratio(one_ms: NDArray[np.float64], other_ms: NDArray[np.float64], *, seed: int = 0) -> Ratio:
    """Compare float64[rounds, queries] of two engines that ran in turn.

    The median over rounds of the ratio of the medians within a round: what slows the machine for longer than a
    round slows both. The interval is a percentile bootstrap over rounds (Efron 1979).
    """
    by_round = np.median(one_ms, axis=1) / np.median(other_ms, axis=1)
    picks = np.random.default_rng(seed).integers(0, len(by_round), (_RESAMPLES, len(by_round)))
    low, high = (float(end) for end in np.percentile(np.median(by_round[picks], axis=1), [2.5, 97.5]))
    found = float(np.median(by_round))
    return Ratio(
        ratio=round(found, 4),
        low=round(low, 4),
        high=round(high, 4),
        rounds=len(by_round),
        verdict=_verdict(found, low, high) if len(by_round) >= LEAST_ROUNDS else "undecided",
    )


def _verdict(found: float, low: float, high: float) -> Verdict:
    most = 1 + LEAST_EFFECT
    if low > 1 and found >= most:
        return "slower"
    if high < 1 and found <= 1 / most:
        return "faster"
    return "alike" if low > 1 / most and high < most else "undecided"


@dataclass(frozen=True, kw_only=True)
class Line:
    """`fixed_ms + ms_per_megapixel * megapixels`, and how well that describes what was measured."""

    fixed_ms: float
    ms_per_megapixel: float
    r2: float
    """Share of the variance that it explains."""
    worst: float
    """Largest difference from what was measured, as a share of it."""


def line(megapixels: Sequence[float], ms: Sequence[float]) -> Line | None:
    """Least squares of the relative error, so that small frames count as much as large ones; None below three."""
    if len(ms) < 3:
        return None
    x, y = np.asarray(megapixels, np.float64), np.asarray(ms, np.float64)
    slope, fixed = np.polyfit(x, y, 1, w=1 / y)
    residual = y - (fixed + slope * x)
    spread = float(((y - y.mean()) ** 2).sum())
    return Line(
        fixed_ms=round(float(fixed), 4),
        ms_per_megapixel=round(float(slope), 4),
        r2=round(1 - float((residual**2).sum()) / spread, 5) if spread else 1.0,
        worst=round(float(np.abs(residual / y).max()), 5),
    )
