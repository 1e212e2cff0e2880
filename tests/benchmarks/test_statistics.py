"""Percentiles, spread, slowdowns and line fits of numbers with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.statistics import MIN_ROUNDS, compare, fit_line, summarize


def test_percentiles_are_values_that_occurred() -> None:
    summary = summarize([float(value) for value in range(200, 0, -1)])
    assert (summary.n, summary.min_ms, summary.max_ms, summary.mean_ms) == (200, 1, 200, 100.5)
    assert (summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms) == (100, 180, 190, 198)
    assert summary.mad_ms == 50
    assert summary.iqr_ms == 100


@pytest.mark.parametrize(("n", "known"), [(10, 0), (11, 1), (20, 1), (21, 2), (100, 2), (101, 3)])
def test_a_percentile_of_too_few_values_is_none(n: int, known: int) -> None:
    summary = summarize([float(value + 1) for value in range(n)])
    tails = (summary.p90_ms, summary.p95_ms, summary.p99_ms)
    assert [value is not None for value in tails] == [True] * known + [False] * (3 - known)
    assert all(value < summary.max_ms for value in tails if value is not None)


def test_one_stall_moves_the_maximum_and_not_the_median() -> None:
    summary = summarize([10.0] * 99 + [1000.0])
    assert (summary.p50_ms, summary.max_ms, summary.mad_ms) == (10, 1000, 0)


def make_rounds(level: float, seed: int, *, n: int = 40, noise: float = 0.05) -> np.ndarray:
    return level * np.exp(np.random.default_rng(seed).normal(0, noise, (n, 4)))


@pytest.mark.parametrize(
    ("times", "noise", "verdict"),
    [(1.1, 0.05, "slower"), (1 / 1.1, 0.05, "faster"), (1.0, 0.05, "alike"), (1.0, 0.5, "undecided")],
)
def test_the_verdict_follows_from_the_interval(times: float, noise: float, verdict: str) -> None:
    slowdown = compare(make_rounds(times, 1, noise=noise), make_rounds(1.0, 2, noise=noise))
    assert slowdown.low <= slowdown.ratio <= slowdown.high
    assert slowdown.verdict == verdict
    assert compare(make_rounds(times, 1, noise=noise), make_rounds(1.0, 2, noise=noise)) == slowdown, (
        "the same data gives the same interval"
    )


def test_a_small_but_certain_difference_counts_as_alike() -> None:
    slowdown = compare(make_rounds(1.02, 1, noise=0.001), make_rounds(1.0, 2, noise=0.001))
    assert slowdown.low > 1
    assert slowdown.verdict == "alike"


def test_too_few_rounds_decide_nothing() -> None:
    few = MIN_ROUNDS - 1
    assert compare(make_rounds(2.0, 1, n=few), make_rounds(1.0, 2, n=few)).verdict == "undecided"
    assert compare(make_rounds(2.0, 1, n=few + 1), make_rounds(1.0, 2, n=few + 1)).verdict == "slower"


@pytest.mark.parametrize("n", [MIN_ROUNDS, 40])
def test_a_95_percent_interval_contains_the_true_ratio_as_often(n: int) -> None:
    """Use heavy-tailed times, as on a shared machine."""
    contained = 0
    for trial in range(300):
        random = np.random.default_rng(trial)
        one, other = (random.lognormal(0, 0.05, (n, 4)) + random.exponential(0.1, (n, 1)) for _ in range(2))
        slowdown = compare(one, other)
        contained += slowdown.low <= 1 <= slowdown.high
    assert contained >= 0.92 * 300


def test_a_line_is_fitted_with_its_deviation() -> None:
    megapixels = [0.06, 0.23, 0.9, 2.1]
    exact = fit_line(megapixels, [2 + 70 * area for area in megapixels])
    assert exact is not None
    assert (exact.fixed_ms, exact.ms_per_megapixel) == pytest.approx((2, 70))
    assert (exact.r2, exact.worst) == pytest.approx((1, 0), abs=1e-4)
    bent = fit_line(megapixels, [2 + 70 * area**2 for area in megapixels])
    assert bent is not None
    assert bent.worst > 0.1
    assert fit_line([1, 2], [1, 2]) is None
