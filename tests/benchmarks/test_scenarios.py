"""Load shapes, with engines of known latency on a clock that does as it is told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.harness.scenarios import BLOCK, Load, at_rate, offline, single_stream, warm_up
from benchmarks.harness.statistics import ratio, summary
from tests.virtual import FRAMES, KnownEngine, VirtualClock

# Comparing


class Machine:
    """Grows slower, throttles now and then, and disturbs single frames: what a shared machine does."""

    def __init__(self, seed: int) -> None:
        self.clock = VirtualClock()
        self._random = np.random.default_rng(seed)

    def engine(self, ms: float) -> KnownEngine:
        def latency_ms(_: int) -> float:
            seconds = self.clock.time_ns / 1e9
            drift = 1 + 0.02 * seconds + 0.1 * math.sin(seconds)
            throttled = 1.3 if int(seconds) % 5 == 0 else 1.0
            stall = 5 * ms if self._random.random() < 0.02 else 0.0
            return ms * drift * throttled * self._random.lognormal(0, 0.03) + stall

        return KnownEngine(latency_ms, self.clock)


@pytest.mark.parametrize(("planted", "verdict"), [(1.10, {"slower"}), (1 / 1.10, {"faster"})])
def test_a_planted_slowdown_is_found_20_times_out_of_20(planted: float, verdict: set[str]) -> None:
    assert {compared(planted, seed) for seed in range(20)} == verdict


def test_no_slowdown_is_not_found_20_times_out_of_20() -> None:
    assert {compared(1.0, seed) for seed in range(20)} <= {"alike", "undecided"}


def compared(times: float, seed: int) -> str:
    """With the default load."""
    machine = Machine(seed)
    one, other = machine.engine(10 * times), machine.engine(10)
    measured = single_stream([one, other], FRAMES, Load(), clock=machine.clock)
    return ratio(*measured).verdict


def test_one_after_the_other_the_drift_would_decide() -> None:
    """Why they take turns: the same two engines, A then B, differ by what the machine did meanwhile."""
    machine = Machine(0)
    first, second = (single_stream([machine.engine(10)], FRAMES, Load(), clock=machine.clock)[0] for _ in range(2))
    n = min(len(first), len(second))
    assert ratio(second[:n], first[:n]).verdict == "slower"


@pytest.mark.slow
def test_a_planted_slowdown_is_found_in_real_time() -> None:
    load = Load(min_queries=160, min_duration_s=0)
    slow, fast, alike = single_stream([KnownEngine(11), KnownEngine(10), KnownEngine(10)], FRAMES, load)
    assert ratio(slow, fast).verdict == "slower"
    assert ratio(alike, fast).verdict in {"alike", "undecided"}
    assert summary(fast).p50_ms == pytest.approx(10, rel=0.05)


def test_both_least_queries_and_least_time_are_met_by_each() -> None:
    clock = VirtualClock()
    fast, slow = KnownEngine(1, clock), KnownEngine(30, clock)
    for load in (Load(min_queries=50, min_duration_s=0), Load(min_queries=1, min_duration_s=0.5)):
        for taken in single_stream([fast, slow], FRAMES, load, clock=clock):
            assert taken.size >= load.min_queries
            assert taken.sum() >= 1e3 * load.min_duration_s
    assert single_stream([fast, slow], FRAMES, Load(min_rounds=7), clock=clock)[0].shape[0] >= 7


def test_blocks_last_long_enough_for_the_pauses_between_them() -> None:
    clock = VirtualClock()
    engines = [KnownEngine(ms, clock) for ms in (0.001, 1, 10, 100)]
    taken = single_stream(engines, FRAMES, Load(min_queries=1, min_duration_s=0), clock=clock)
    assert [each.shape[1] for each in taken] == [1000, 49, 4, 4]


def test_turns_are_taken_both_ways() -> None:
    clock, order = VirtualClock(), []
    engines = [KnownEngine(lambda _, name=name: order.append(name) or 20.0, clock) for name in "AB"]
    single_stream(engines, FRAMES, Load(min_queries=2 * BLOCK, min_duration_s=0), clock=clock)
    assert "".join(order) == "AAABBB" + "AAAAABBBBB" + "BBBBBAAAAA", "three before, to see how long they take"


def test_one_engine_alone_is_not_interrupted() -> None:
    clock = VirtualClock(reading_ns=0)
    engine = KnownEngine(5, clock)
    began = clock.time_ns
    (taken,) = single_stream([engine], FRAMES, Load(min_queries=20, min_duration_s=0), clock=clock)
    assert engine.queries == taken.size + 3
    assert (clock.time_ns - began) / 1e6 == pytest.approx(taken.sum() + 3 * 5)


@pytest.mark.parametrize(
    "wrong", [{"min_queries": 0}, {"min_rounds": 0}, {"min_duration_s": -1.0}, {"warm_up_s": -1.0}]
)
def test_a_load_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected at least one query"):
        Load(**wrong)  # type: ignore[arg-type]


# Warm-up


def test_slow_first_queries_are_left_out_and_told() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 200.0 if query == 0 else 30.0 if query < 20 else 10.0, clock)
    told = warm_up(engine, FRAMES, least_s=1.0, clock=clock)
    (taken,) = single_stream([engine], FRAMES, Load(min_queries=100, min_duration_s=0), clock=clock)
    assert told.steady
    assert told.queries >= 20
    assert told.first_ms == pytest.approx(200, abs=0.01)
    assert 1.0 <= told.seconds < 1.5
    assert taken.max() == pytest.approx(10, abs=0.01), "none of the slow ones is counted"


def test_without_a_warm_up_they_would_be_counted() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 30.0 if query < 20 else 10.0, clock)
    (taken,) = single_stream([engine], FRAMES, Load(min_queries=100, min_duration_s=0), clock=clock)
    assert (taken > 20).sum() == 17, "all but the three that show how long they take"


def test_a_warm_up_goes_on_while_queries_get_faster() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 10 + 90 * 0.98**query, clock)
    told = warm_up(engine, FRAMES, least_s=0.1, clock=clock)
    assert told.steady
    assert told.seconds > 1
    assert 10 + 90 * 0.98**told.queries < 30


def test_a_warm_up_without_end_is_ended_and_told() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 1000 * 0.98**query + 10_000 * 0.97**query, clock)
    told = warm_up(engine, FRAMES, least_s=0, clock=clock)
    assert not told.steady
    assert told.seconds > 60


def test_a_warm_up_of_microseconds_took_time() -> None:
    clock = VirtualClock()
    assert 0 < warm_up(KnownEngine(0.005, clock), FRAMES, least_s=0, clock=clock).seconds < 0.001


# At fixed times


def stalling(clock: VirtualClock, *, at: int) -> KnownEngine:
    """A millisecond a frame, but one second for one of them."""
    return KnownEngine(lambda query: 1000.0 if query == at else 1.0, clock)


def test_a_stall_is_seen_by_every_query_that_waited_for_it() -> None:
    clock = VirtualClock()
    told = at_rate(stalling(clock, at=100), FRAMES, rate_fps=50, queries=500, clock=clock)
    assert 48 <= told.late <= 55, "50 frames are due in the second that it stands still"
    assert (told.from_sent_ms > 20).sum() == 1, "which is all that would be seen from when they were sent"
    from_due, from_sent = summary(told.latency_ms), summary(told.from_sent_ms)
    assert from_due.p95_ms is not None
    assert from_due.p95_ms > 400
    assert from_sent.p99_ms == pytest.approx(1.0, abs=0.01)
    assert from_due.p50_ms == pytest.approx(1.0, abs=0.01)
    assert told.held
    assert told.seconds == pytest.approx(10, rel=0.01)


def test_a_rate_that_cannot_be_held_is_told() -> None:
    clock = VirtualClock()
    told = at_rate(KnownEngine(25.0, clock), FRAMES, rate_fps=50, queries=200, clock=clock)
    assert not told.held
    assert told.late == 200
    assert told.latency_ms[-1] == pytest.approx(25 + 199 * 5, rel=0.01), "the queue grows by 5 ms a query"
    assert summary(told.from_sent_ms).max_ms == pytest.approx(25, abs=0.01)


def test_a_timer_that_wakes_late_counts_too() -> None:
    clock = VirtualClock()
    punctual = clock.sleep
    engine = KnownEngine(1.0, clock)
    clock.sleep = lambda seconds: punctual(seconds + 0.002 if seconds > 0.0015 else seconds)  # type: ignore[method-assign]
    told = at_rate(engine, FRAMES, rate_fps=50, queries=50, clock=clock)
    assert np.median(told.latency_ms) == pytest.approx(3, abs=0.01)


# Offline


class Slotted(KnownEngine):
    """Works on `slots` frames at once; asserts that it is never given more."""

    slots = 3

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(30.0, clock)
        self._ready: list[int] = []
        self.most = 0

    def submit(self, batch: np.ndarray) -> None:
        assert self._clock
        self._ready.append(self._clock.time_ns + 30_000_000)
        self.most = max(self.most, len(self._ready))
        assert len(self._ready) <= self.slots

    def collect(self) -> np.ndarray:
        assert self._clock
        self._clock.time_ns = max(self._clock.time_ns, self._ready.pop(0))
        return FRAMES[0]


def test_throughput_is_frames_over_wall_time() -> None:
    clock = VirtualClock()
    done, seconds = offline(KnownEngine(10.0, clock), FRAMES, duration_s=2, clock=clock)
    assert done / seconds == pytest.approx(100, rel=0.01)
    assert seconds == pytest.approx(2, rel=0.01)


def test_all_slots_are_kept_busy() -> None:
    clock = VirtualClock()
    engine = Slotted(clock)
    done, seconds = offline(engine, FRAMES, duration_s=3, clock=clock)
    assert engine.most == 3
    assert not engine._ready
    assert done / seconds == pytest.approx(100, rel=0.05), "three at once, 30 ms each"
