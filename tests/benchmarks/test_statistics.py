"""Percentiles, spread, ratios and lines of numbers whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.harness.statistics import LEAST_ROUNDS, line, ratio, summary


def test_percentiles_are_values_that_occurred() -> None:
    told = summary([float(value) for value in range(200, 0, -1)])
    assert (told.n, told.min_ms, told.max_ms, told.mean_ms) == (200, 1, 200, 100.5)
    assert (told.p50_ms, told.p90_ms, told.p95_ms, told.p99_ms) == (100, 180, 190, 198)
    assert told.mad_ms == 50
    assert told.iqr_ms == 100


@pytest.mark.parametrize(("n", "known"), [(10, 0), (11, 1), (20, 1), (21, 2), (100, 2), (101, 3)])
def test_a_percentile_of_too_few_is_not_told(n: int, known: int) -> None:
    told = summary([float(value + 1) for value in range(n)])
    tails = (told.p90_ms, told.p95_ms, told.p99_ms)
    assert [value is not None for value in tails] == [True] * known + [False] * (3 - known)
    assert all(value < told.max_ms for value in tails if value is not None)


def test_one_stall_moves_the_maximum_and_not_the_median() -> None:
    told = summary([10.0] * 99 + [1000.0])
    assert (told.p50_ms, told.max_ms, told.mad_ms) == (10, 1000, 0)


def rounds(level: float, seed: int, *, n: int = 40, noise: float = 0.05) -> np.ndarray:
    return level * np.exp(np.random.default_rng(seed).normal(0, noise, (n, 4)))


@pytest.mark.parametrize(
    ("times", "noise", "verdict"),
    [(1.1, 0.05, "slower"), (1 / 1.1, 0.05, "faster"), (1.0, 0.05, "alike"), (1.0, 0.5, "undecided")],
)
def test_verdicts(times: float, noise: float, verdict: str) -> None:
    found = ratio(rounds(times, 1, noise=noise), rounds(1.0, 2, noise=noise))
    assert found.low <= found.ratio <= found.high
    assert found.verdict == verdict
    assert ratio(rounds(times, 1, noise=noise), rounds(1.0, 2, noise=noise)) == found, (
        "the same data gives the same interval"
    )


def test_a_small_difference_that_is_certain_is_still_no_finding() -> None:
    found = ratio(rounds(1.02, 1, noise=0.001), rounds(1.0, 2, noise=0.001))
    assert found.low > 1
    assert found.verdict == "alike"


def test_too_few_rounds_decide_nothing() -> None:
    few = LEAST_ROUNDS - 1
    assert ratio(rounds(2.0, 1, n=few), rounds(1.0, 2, n=few)).verdict == "undecided"
    assert ratio(rounds(2.0, 1, n=few + 1), rounds(1.0, 2, n=few + 1)).verdict == "slower"


@pytest.mark.parametrize("n", [LEAST_ROUNDS, 40])
def test_a_95_percent_interval_holds_the_truth_so_often(n: int) -> None:
    """With the heavy tails of a machine that others use too."""
    held = 0
    for trial in range(300):
        random = np.random.default_rng(trial)
        one, other = (random.lognormal(0, 0.05, (n, 4)) + random.exponential(0.1, (n, 1)) for _ in range(2))
        found = ratio(one, other)
        held += found.low <= 1 <= found.high
    assert held >= 0.92 * 300


def test_a_line_is_found_and_how_well_it_fits() -> None:
    megapixels = [0.06, 0.23, 0.9, 2.1]
    exact = line(megapixels, [2 + 70 * each for each in megapixels])
    assert exact is not None
    assert (exact.fixed_ms, exact.ms_per_megapixel) == pytest.approx((2, 70))
    assert (exact.r2, exact.worst) == pytest.approx((1, 0), abs=1e-4)
    bent = line(megapixels, [2 + 70 * each**2 for each in megapixels])
    assert bent is not None
    assert bent.worst > 0.1
    assert line([1, 2], [1, 2]) is None
