"""Clocks that are coarse, stand still, run backwards or run fast are noticed."""

from __future__ import annotations

import itertools
import time

import pytest

from benchmarks.harness.clock import Skew, WallClock, examine, require_fine
from benchmarks.harness.scenarios import Load, single_stream
from runtime.errors import NumbersError
from tests.virtual import FRAMES, KnownEngine, VirtualClock


def test_resolution_and_cost_are_told() -> None:
    told = examine(VirtualClock(reading_ns=50))
    assert (told.resolution_ns, told.cost_ns) == (50, 50)
    coarse = examine(VirtualClock(reading_ns=50, tick_ns=1_000_000))
    assert (coarse.resolution_ns, coarse.cost_ns) == (1_000_000, 50)


def test_the_clock_of_this_machine_is_good_enough() -> None:
    told = examine(WallClock())
    require_fine(told, 1.0)
    assert 0 < told.cost_ns < 100_000
    skew = Skew(WallClock())
    time.sleep(0.2)  # over microseconds it would compare how long two readings take
    assert abs(skew.checked()) < 0.5


def test_a_coarse_clock_is_refused_where_it_would_mislead() -> None:
    clock = VirtualClock(tick_ns=15_625_000)  # an old Windows's
    told = examine(clock)
    (rounds,) = single_stream([KnownEngine(10.0, clock)], FRAMES, Load(min_queries=40, min_duration_s=0), clock=clock)
    assert set(rounds.round(3).ravel()) == {0.0, 15.625}, "which the engine never took"
    with pytest.raises(NumbersError, match=r"ticks every 15\.625 ms, too coarse for 10 ms"):
        require_fine(told, 10.0)
    require_fine(told, 2000.0)


def test_a_clock_that_stands_still_or_runs_backwards_is_refused() -> None:
    clock = VirtualClock(reading_ns=0)
    with pytest.raises(NumbersError, match="stands still"):
        examine(clock)
    times = itertools.count(10**9, -1)
    clock.now_ns = lambda: next(times)  # type: ignore[method-assign]
    with pytest.raises(NumbersError, match="backwards"):
        examine(clock)


@pytest.mark.parametrize(("speed", "word"), [(1.01, "fast"), (0.98, "slow")])
def test_a_clock_of_another_speed_is_refused(speed: float, word: str) -> None:
    clock = VirtualClock(speed=speed)
    skew = Skew(clock)
    clock.sleep(60)
    with pytest.raises(NumbersError, match=rf"runs \d\.\d\d% {word}"):
        skew.checked()


def test_a_clock_that_ntp_trims_is_accepted() -> None:
    clock = VirtualClock(speed=1 + 100e-6)
    skew = Skew(clock)
    clock.sleep(60)
    assert skew.checked() == pytest.approx(100e-6, rel=0.01)


def test_the_cost_of_a_reading_is_all_that_is_added() -> None:
    clock = VirtualClock(reading_ns=400)
    (rounds,) = single_stream([KnownEngine(2.0, clock)], FRAMES, Load(min_queries=8, min_duration_s=0), clock=clock)
    assert rounds == pytest.approx(2.0 + 400e-6)
