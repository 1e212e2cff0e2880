"""Load scenarios with engines of known latency on a virtual clock."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.harness.scenarios import BLOCK, Load, run_offline, run_server, run_single_stream, warm_up
from benchmarks.harness.statistics import compare, summarize
from tests.virtual import FRAMES, KnownEngine, VirtualClock

# Comparison


class Machine:
    """Simulated shared machine: becomes slower, throttles now and then, and delays single frames."""

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
    assert {find_verdict(planted, seed) for seed in range(20)} == verdict


def test_no_slowdown_is_not_found_20_times_out_of_20() -> None:
    assert {find_verdict(1.0, seed) for seed in range(20)} <= {"alike", "undecided"}


def find_verdict(slowdown: float, seed: int) -> str:
    """Compare two engines on a simulated machine with the default load."""
    machine = Machine(seed)
    one, other = machine.engine(10 * slowdown), machine.engine(10)
    measured = run_single_stream([one, other], FRAMES, Load(), clock=machine.clock)
    return compare(*measured).verdict


def test_without_interleaving_the_drift_decides() -> None:
    """Run the same engine twice, one after the other: the drift of the machine makes the second run slower."""
    machine = Machine(0)
    first, second = (run_single_stream([machine.engine(10)], FRAMES, Load(), clock=machine.clock)[0] for _ in range(2))
    n = min(len(first), len(second))
    assert compare(second[:n], first[:n]).verdict == "slower"


@pytest.mark.slow
def test_a_planted_slowdown_is_found_in_real_time() -> None:
    load = Load(min_queries=160, min_duration_s=0)
    slow, fast, alike = run_single_stream([KnownEngine(11), KnownEngine(10), KnownEngine(10)], FRAMES, load)
    assert compare(slow, fast).verdict == "slower"
    assert compare(alike, fast).verdict in {"alike", "undecided"}
    assert summarize(fast).p50_ms == pytest.approx(10, rel=0.05)


def test_every_engine_reaches_all_minimum_loads() -> None:
    clock = VirtualClock()
    fast, slow = KnownEngine(1, clock), KnownEngine(30, clock)
    for load in (Load(min_queries=50, min_duration_s=0), Load(min_queries=1, min_duration_s=0.5)):
        for times_ms in run_single_stream([fast, slow], FRAMES, load, clock=clock):
            assert times_ms.size >= load.min_queries
            assert times_ms.sum() >= 1e3 * load.min_duration_s
    assert run_single_stream([fast, slow], FRAMES, Load(min_rounds=7), clock=clock)[0].shape[0] >= 7


def test_blocks_are_long_compared_with_the_pauses() -> None:
    clock = VirtualClock()
    engines = [KnownEngine(ms, clock) for ms in (0.001, 1, 10, 100)]
    times_ms = run_single_stream(engines, FRAMES, Load(min_queries=1, min_duration_s=0), clock=clock)
    assert [times.shape[1] for times in times_ms] == [1000, 49, 4, 4]


def test_rounds_alternate_in_order() -> None:
    clock, order = VirtualClock(), []
    engines = [KnownEngine(lambda _, name=name: order.append(name) or 20.0, clock) for name in "AB"]
    run_single_stream(engines, FRAMES, Load(min_queries=2 * BLOCK, min_duration_s=0), clock=clock)
    assert "".join(order) == "AAABBB" + "AAAAABBBBB" + "BBBBBAAAAA", "three trial queries choose the size of a block"


def test_one_engine_alone_is_not_interrupted() -> None:
    clock = VirtualClock(reading_ns=0)
    engine = KnownEngine(5, clock)
    began = clock.time_ns
    (times_ms,) = run_single_stream([engine], FRAMES, Load(min_queries=20, min_duration_s=0), clock=clock)
    assert engine.queries == times_ms.size + 3
    assert (clock.time_ns - began) / 1e6 == pytest.approx(times_ms.sum() + 3 * 5)


@pytest.mark.parametrize(
    "wrong", [{"min_queries": 0}, {"min_rounds": 0}, {"min_duration_s": -1.0}, {"warm_up_s": -1.0}]
)
def test_an_invalid_load_is_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected at least one query"):
        Load(**wrong)  # type: ignore[arg-type]


# Warm-up


def test_slow_first_queries_are_part_of_the_warm_up_only() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 200.0 if query == 0 else 30.0 if query < 20 else 10.0, clock)
    run = warm_up(engine, FRAMES, min_s=1.0, clock=clock)
    (times_ms,) = run_single_stream([engine], FRAMES, Load(min_queries=100, min_duration_s=0), clock=clock)
    assert run.steady
    assert run.queries >= 20
    assert run.first_ms == pytest.approx(200, abs=0.01)
    assert 1.0 <= run.seconds < 1.5
    assert times_ms.max() == pytest.approx(10, abs=0.01), "no slow query is counted"


def test_without_a_warm_up_slow_first_queries_are_counted() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 30.0 if query < 20 else 10.0, clock)
    (times_ms,) = run_single_stream([engine], FRAMES, Load(min_queries=100, min_duration_s=0), clock=clock)
    assert (times_ms > 20).sum() == 17, "all slow queries except the three trial queries"


def test_a_warm_up_continues_while_queries_get_faster() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 10 + 90 * 0.98**query, clock)
    run = warm_up(engine, FRAMES, min_s=0.1, clock=clock)
    assert run.steady
    assert run.seconds > 1
    assert 10 + 90 * 0.98**run.queries < 30


def test_an_unsteady_warm_up_ends_after_a_minute() -> None:
    clock = VirtualClock()
    engine = KnownEngine(lambda query: 1000 * 0.98**query + 10_000 * 0.97**query, clock)
    run = warm_up(engine, FRAMES, min_s=0, clock=clock)
    assert not run.steady
    assert run.seconds > 60


def test_a_warm_up_of_microseconds_has_a_duration() -> None:
    clock = VirtualClock()
    assert 0 < warm_up(KnownEngine(0.005, clock), FRAMES, min_s=0, clock=clock).seconds < 0.001


# Server


def make_stalling_engine(clock: VirtualClock, *, at: int) -> KnownEngine:
    """Return an engine that takes 1 ms for a frame, but one second for frame `at`."""
    return KnownEngine(lambda query: 1000.0 if query == at else 1.0, clock)


def test_a_stall_is_seen_by_every_query_that_waited_for_it() -> None:
    clock = VirtualClock()
    run = run_server(make_stalling_engine(clock, at=100), FRAMES, rate_fps=50, queries=500, clock=clock)
    assert 48 <= run.late_queries <= 55, "50 queries are due during the stall of one second"
    assert (run.service_ms > 20).sum() == 1, "counted from when it was sent, only one query is slow"
    latency, service = summarize(run.latency_ms), summarize(run.service_ms)
    assert latency.p95_ms is not None
    assert latency.p95_ms > 400
    assert service.p99_ms == pytest.approx(1.0, abs=0.01)
    assert latency.p50_ms == pytest.approx(1.0, abs=0.01)
    assert run.is_rate_sustained
    assert run.seconds == pytest.approx(10, rel=0.01)


def test_a_rate_that_cannot_be_sustained_is_detected() -> None:
    clock = VirtualClock()
    run = run_server(KnownEngine(25.0, clock), FRAMES, rate_fps=50, queries=200, clock=clock)
    assert not run.is_rate_sustained
    assert run.late_queries == 200
    assert run.latency_ms[-1] == pytest.approx(25 + 199 * 5, rel=0.01), "the queue grows by 5 ms for each query"
    assert summarize(run.service_ms).max_ms == pytest.approx(25, abs=0.01)


def test_latency_includes_a_timer_that_wakes_late() -> None:
    clock = VirtualClock()
    original_sleep = clock.sleep
    engine = KnownEngine(1.0, clock)
    clock.sleep = lambda seconds: original_sleep(seconds + 0.002 if seconds > 0.0015 else seconds)  # type: ignore[method-assign]
    run = run_server(engine, FRAMES, rate_fps=50, queries=50, clock=clock)
    assert np.median(run.latency_ms) == pytest.approx(3, abs=0.01)


# Offline


class SlottedEngine(KnownEngine):
    """Engine that works on `slots` frames at the same time, and asserts that it never gets more."""

    slots = 3

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(30.0, clock)
        self._ready: list[int] = []
        self.max_in_flight = 0

    def submit(self, batch: np.ndarray) -> None:
        assert self._clock
        self._ready.append(self._clock.time_ns + 30_000_000)
        self.max_in_flight = max(self.max_in_flight, len(self._ready))
        assert len(self._ready) <= self.slots

    def collect(self) -> np.ndarray:
        assert self._clock
        self._clock.time_ns = max(self._clock.time_ns, self._ready.pop(0))
        return FRAMES[0]


def test_throughput_is_frames_over_wall_time() -> None:
    clock = VirtualClock()
    run = run_offline(KnownEngine(10.0, clock), FRAMES, duration_s=2, clock=clock)
    assert run.fps == pytest.approx(100, rel=0.01)
    assert run.seconds == pytest.approx(2, rel=0.01)


def test_all_slots_are_kept_busy() -> None:
    clock = VirtualClock()
    engine = SlottedEngine(clock)
    run = run_offline(engine, FRAMES, duration_s=3, clock=clock)
    assert engine.max_in_flight == 3
    assert not engine._ready
    assert run.warm_up_frames == 3
    assert run.fps == pytest.approx(100, rel=0.05), "three frames at the same time, 30 ms each"
