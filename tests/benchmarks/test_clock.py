"""Checks of the clock: coarse, stopped, backward and fast clocks are detected."""

from __future__ import annotations

import itertools
import time

import pytest

from benchmarks.harness.clock import ClockSkew, WallClock, examine_clock, require_fine_clock
from benchmarks.harness.scenarios import Load, run_single_stream
from runtime.errors import NumbersError
from tests.virtual import FRAMES, KnownEngine, VirtualClock


def test_resolution_and_cost_of_a_reading_are_measured() -> None:
    facts = examine_clock(VirtualClock(reading_ns=50))
    assert (facts.resolution_ns, facts.cost_ns) == (50, 50)
    coarse = examine_clock(VirtualClock(reading_ns=50, tick_ns=1_000_000))
    assert (coarse.resolution_ns, coarse.cost_ns) == (1_000_000, 50)


def test_the_clock_of_this_machine_is_good_enough() -> None:
    facts = examine_clock(WallClock())
    require_fine_clock(facts, 1.0)
    assert 0 < facts.cost_ns < 100_000
    skew = ClockSkew(WallClock())
    time.sleep(0.2)  # over microseconds, the two readings themselves would decide
    assert abs(skew.measure()) < 0.5


def test_a_coarse_clock_is_rejected_for_short_durations() -> None:
    clock = VirtualClock(tick_ns=15_625_000)  # the tick of old Windows versions
    facts = examine_clock(clock)
    (rounds,) = run_single_stream(
        [KnownEngine(10.0, clock)], FRAMES, Load(min_queries=40, min_duration_s=0), clock=clock
    )
    assert set(rounds.round(3).ravel()) == {0.0, 15.625}, "the engine takes 10 ms"
    with pytest.raises(NumbersError, match=r"ticks every 15\.625 ms, too coarse for 10 ms"):
        require_fine_clock(facts, 10.0)
    require_fine_clock(facts, 2000.0)


def test_a_clock_that_stands_still_or_runs_backwards_is_rejected() -> None:
    clock = VirtualClock(reading_ns=0)
    with pytest.raises(NumbersError, match="stands still"):
        examine_clock(clock)
    times = itertools.count(10**9, -1)
    clock.now_ns = lambda: next(times)  # type: ignore[method-assign]
    with pytest.raises(NumbersError, match="backwards"):
        examine_clock(clock)


@pytest.mark.parametrize(("speed", "word"), [(1.01, "fast"), (0.98, "slow")])
def test_a_clock_of_wrong_speed_is_rejected(speed: float, word: str) -> None:
    clock = VirtualClock(speed=speed)
    skew = ClockSkew(clock)
    clock.sleep(60)
    with pytest.raises(NumbersError, match=rf"runs \d\.\d\d% {word}"):
        skew.measure()


def test_a_clock_that_ntp_adjusts_is_accepted() -> None:
    clock = VirtualClock(speed=1 + 100e-6)
    skew = ClockSkew(clock)
    clock.sleep(60)
    assert skew.measure() == pytest.approx(100e-6, rel=0.01)


def test_a_duration_contains_the_cost_of_one_reading() -> None:
    clock = VirtualClock(reading_ns=400)
    (rounds,) = run_single_stream([KnownEngine(2.0, clock)], FRAMES, Load(min_queries=8, min_duration_s=0), clock=clock)
    assert rounds == pytest.approx(2.0 + 400e-6)
