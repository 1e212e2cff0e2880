"""Statistics of durations: percentiles, spread, slowdowns with confidence intervals, and line fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

MIN_EFFECT = 0.03
"""Smallest relative difference that counts as a finding: unrelated changes of a machine move a figure as much."""
MIN_ROUNDS = 10
"""Smallest number of rounds for a verdict: with fewer, the bootstrap interval of a median is too narrow."""
_RESAMPLES = 2000
Verdict = Literal["slower", "faster", "alike", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Distribution of durations in milliseconds. Percentiles are nearest-rank (see `percentile`).

    A percentile is None if it would only repeat the maximum, such as the 99th of fewer than 101 values.
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
    """Median absolute deviation from the median."""
    iqr_ms: float
    """Interquartile range."""


def summarize(durations_ms: Sequence[float] | NDArray[np.float64]) -> Summary:
    """Summarize one or more durations of any array shape, rounded to a tenth of a microsecond."""
    values = np.sort(np.asarray(durations_ms, np.float64).ravel())
    p50, p25, p75 = (percentile(values, percent) for percent in (50, 25, 75))
    tails = {f"p{percent}_ms": _tail_percentile(values, percent) for percent in (90, 95, 99)}
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


def percentile(values: NDArray[np.float64], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value that at least `percent` per cent do not exceed.

    It is a value that occurred, never an interpolated one.
    """
    return float(np.percentile(values, percent, method="inverted_cdf"))


def _tail_percentile(values: NDArray[np.float64], percent: int) -> float | None:
    return percentile(values, percent) if len(values) * (100 - percent) > 100 else None


@dataclass(frozen=True, kw_only=True)
class Slowdown:
    """Time of one engine divided by the time of a baseline, with a 95 % confidence interval.

    Verdict `slower` or `faster`: the interval excludes 1 and the ratio differs from 1 by MIN_EFFECT or more. `alike`:
    the whole interval is within MIN_EFFECT of 1. Otherwise `undecided`: more rounds are needed.
    """

    ratio: float
    low: float
    high: float
    rounds: int
    verdict: Verdict


def compare(times_ms: NDArray[np.float64], baseline_ms: NDArray[np.float64], *, seed: int = 0) -> Slowdown:
    """Compare two interleaved engines by their times, float64[rounds, queries] each.

    The slowdown is the median over rounds of the ratio of the two medians within a round: a disturbance that lasts
    longer than a round affects both engines. The interval is a percentile bootstrap over rounds (Efron 1979).
    """
    ratios = np.median(times_ms, axis=1) / np.median(baseline_ms, axis=1)
    resamples = np.random.default_rng(seed).integers(0, len(ratios), (_RESAMPLES, len(ratios)))
    low, high = (float(end) for end in np.percentile(np.median(ratios[resamples], axis=1), [2.5, 97.5]))
    ratio = float(np.median(ratios))
    return Slowdown(
        ratio=round(ratio, 4),
        low=round(low, 4),
        high=round(high, 4),
        rounds=len(ratios),
        verdict=_decide(ratio, low, high) if len(ratios) >= MIN_ROUNDS else "undecided",
    )


def _decide(ratio: float, low: float, high: float) -> Verdict:
    threshold = 1 + MIN_EFFECT
    if low > 1 and ratio >= threshold:
        return "slower"
    if high < 1 and ratio <= 1 / threshold:
        return "faster"
    return "alike" if low > 1 / threshold and high < threshold else "undecided"


@dataclass(frozen=True, kw_only=True)
class LineFit:
    """Model `fixed_ms + ms_per_megapixel * megapixels`, and how well it matches the measurements."""

    fixed_ms: float
    ms_per_megapixel: float
    r2: float
    """Coefficient of determination: share of the variance that the line explains."""
    worst: float
    """Largest deviation of the line from a measurement, as a share of the measurement."""


def fit_line(megapixels: Sequence[float], times_ms: Sequence[float]) -> LineFit | None:
    """Fit a line by least squares of the relative error; None with fewer than three points.

    The relative error makes small frames count as much as large ones.
    """
    if len(times_ms) < 3:
        return None
    x, y = np.asarray(megapixels, np.float64), np.asarray(times_ms, np.float64)
    slope, fixed = np.polyfit(x, y, 1, w=1 / y)
    residual = y - (fixed + slope * x)
    total = float(((y - y.mean()) ** 2).sum())
    return LineFit(
        fixed_ms=round(float(fixed), 4),
        ms_per_megapixel=round(float(slope), 4),
        r2=round(1 - float((residual**2).sum()) / total, 5) if total else 1.0,
        worst=round(float(np.abs(residual / y).max()), 5),
    )
