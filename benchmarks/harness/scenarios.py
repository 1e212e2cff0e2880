"""Load scenarios with the names of MLPerf Inference: single stream, server, and offline.

A query is one frame for one engine. Single stream sends a query when the previous one is done, server sends queries
at fixed times, offline keeps all slots of the engine busy (Reddi et al. 2020). Unlike MLPerf's, the server scenario
has a constant rate, not random arrivals. No figure of these benchmarks is an MLPerf result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.clock import Clock, WallClock
from runtime.engines.base import Engine
from runtime.engines.timing import interleave
from runtime.frame import Pixels

BLOCK = 4
"""Smallest number of queries that one engine answers before the next engine gets its block."""
_BLOCK_S = 0.05
"""Approximate duration of a block in seconds. Without it, fast engines would spend most of the run in pauses."""
_MAX_BLOCK = 1000
_PILOT_QUERIES = 3
THROUGHPUT_ROUNDS = 3
"""Number of rounds in which interleaved engines are measured for throughput."""
_WARM_UP_WINDOW = 5
_STEADY_SHARE = 0.95
"""An engine is warm when the median of its last window is at least this share of that of the window before."""
_MAX_WARM_UP_S = 60.0
_WALL_CLOCK = WallClock()
Query = Callable[[], object]
"""Restores one frame."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Minimum amount of work for each engine; all limits must be reached."""

    min_queries: int = 128
    min_duration_s: float = 10.0
    """Seconds that the queries of each engine take together, without pauses."""
    warm_up_s: float = 1.0
    min_rounds: int = 1
    """Rounds of blocks, where engines are compared."""

    def __post_init__(self) -> None:
        if min(self.min_queries, self.min_rounds) < 1 or self.min_duration_s < 0 or self.warm_up_s < 0:
            raise ValueError(f"expected at least one query and round and no negative times, got {self}")

    def to_json(self) -> dict[str, Any]:
        """Return `load` of schema.json."""
        return {name: value for name, value in asdict(self).items() if name != "min_rounds"}


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Queries before the measurement, which are not part of its results."""

    queries: int
    seconds: float
    first_ms: float
    """Milliseconds of the very first frame, in which libraries choose kernels and allocate memory."""
    steady: bool
    """Whether queries had stopped getting faster."""


def warm_up(engine: Engine, frames: Sequence[Pixels], *, min_s: float, clock: Clock = _WALL_CLOCK) -> WarmUp:
    """Run queries for at least `min_s` seconds and until they get no faster, at most for a minute or `min_s`."""
    times_ms: list[float] = []
    query = cycle_frames(engine.infer, frames)
    began = clock.now_ns()
    while True:
        times_ms += [_time_query_ms(query, clock) for _ in range(_WARM_UP_WINDOW)]
        seconds = (clock.now_ns() - began) / 1e9
        last = np.median(times_ms[-_WARM_UP_WINDOW:])
        before = np.median(times_ms[-2 * _WARM_UP_WINDOW : -_WARM_UP_WINDOW] or [np.inf])
        is_steady = bool(last >= _STEADY_SHARE * before)
        if (seconds >= min_s and is_steady) or seconds > max(_MAX_WARM_UP_S, min_s):
            first_ms = round(times_ms[0], 4)
            return WarmUp(queries=len(times_ms), seconds=round(seconds, 6), first_ms=first_ms, steady=is_steady)


def cycle_frames(restore: Callable[[Pixels], Pixels], frames: Sequence[Pixels]) -> Query:
    """Return a query that restores the next frame of an endless cycle at each call."""
    cycle = itertools.cycle(frames)
    return lambda: restore(next(cycle))


# Single stream


def run_single_stream(
    engines: Sequence[Engine], frames: Sequence[Pixels], load: Load, *, clock: Clock = _WALL_CLOCK
) -> list[NDArray[np.float64]]:
    """Run the single stream scenario on interleaved engines; see `run_interleaved`.

    `frames`: uint8[1, H, W, 3] BGR each.
    """
    return run_interleaved([cycle_frames(engine.infer, frames) for engine in engines], load, clock=clock)


def run_interleaved(
    queries: Sequence[Query], load: Load, *, block_sizes: Sequence[int] = (), clock: Clock = _WALL_CLOCK
) -> list[NDArray[np.float64]]:
    """Return the milliseconds of every query, float64[rounds, block size] for each item of `queries`.

    The items run in alternating blocks, in reverse order every second round (A B, B A), so that a machine that becomes
    slower does so for all of them. With more than one item, a block begins with a pause of PAUSE_S and one query that
    is not counted, which wakes the threads of the engine. `block_sizes` sets the number of queries in a block;
    without it, a few trial queries decide.
    """
    sizes = block_sizes or [_choose_block_size(query, clock) for query in queries]
    rounds = interleave(
        [partial(_time_block_ms, query, size, clock) for query, size in zip(queries, sizes, strict=True)],
        has_enough=lambda results: all(_has_enough(blocks, load=load) for blocks in results),
        wake=lambda index: queries[index](),
        pause=clock.sleep,
    )
    return [np.array(blocks) for blocks in rounds]


def _time_block_ms(query: Query, size: int, clock: Clock) -> list[float]:
    return [_time_query_ms(query, clock) for _ in range(size)]


def _choose_block_size(query: Query, clock: Clock) -> int:
    trial_ms = float(np.median([_time_query_ms(query, clock) for _ in range(_PILOT_QUERIES)]))
    return int(np.clip(1e3 * _BLOCK_S / max(trial_ms, 1e-6), BLOCK, _MAX_BLOCK))


def _has_enough(blocks: Sequence[Sequence[float]], *, load: Load) -> bool:
    return (
        len(blocks) >= load.min_rounds
        and sum(map(len, blocks)) >= load.min_queries
        and sum(map(sum, blocks)) >= 1e3 * load.min_duration_s
    )


def _time_query_ms(query: Query, clock: Clock) -> float:
    began = clock.now_ns()
    query()
    return (clock.now_ns() - began) / 1e6


# Server


@dataclass(frozen=True, kw_only=True)
class ServerRun:
    """Result of the server scenario. Latency counts from the moment a query was due, not from when it was sent.

    A stall then shows in the latency of every query that had to wait for it (Tene: coordinated omission).
    """

    rate_fps: float
    latency_ms: NDArray[np.float64]
    """Milliseconds from due to done."""
    service_ms: NDArray[np.float64]
    """Milliseconds from sent to done: the latency that a measurement without waiting times would report."""
    seconds: float

    @property
    def late_queries(self) -> int:
        """Number of queries that were not done when the next one was due."""
        return int((self.latency_ms > 1e3 / self.rate_fps).sum())

    @property
    def is_rate_sustained(self) -> bool:
        """Whether the last tenth of the queries waited no longer than one period, so that the queue does not grow."""
        waits_ms = (self.latency_ms - self.service_ms)[-max(1, len(self.latency_ms) // 10) :]
        return bool(np.median(waits_ms) <= 1e3 / self.rate_fps)


def run_server(
    engine: Engine, frames: Sequence[Pixels], *, rate_fps: float, queries: int, clock: Clock = _WALL_CLOCK
) -> ServerRun:
    """Run one query every 1 / `rate_fps` seconds; a query that becomes due while the engine works waits for it."""
    period_ns = 1e9 / rate_fps
    latency_ms, service_ms = [], []
    began = clock.now_ns()
    for index, frame in zip(range(queries), itertools.cycle(frames), strict=False):
        due = began + round(index * period_ns)
        if (wait_ns := due - clock.now_ns()) > 0:
            clock.sleep(wait_ns / 1e9)
        sent = clock.now_ns()
        engine.infer(frame)
        done = clock.now_ns()
        latency_ms.append((done - due) / 1e6)
        service_ms.append((done - sent) / 1e6)
    return ServerRun(
        rate_fps=rate_fps,
        latency_ms=np.array(latency_ms),
        service_ms=np.array(service_ms),
        seconds=(clock.now_ns() - began) / 1e9,
    )


# Offline


@dataclass(frozen=True, kw_only=True)
class OfflineRun:
    """Result of the offline scenario, from the first frame submitted to the last result collected."""

    frames: int
    seconds: float
    warm_up_frames: int
    """Number of frames that were computed before."""

    @property
    def fps(self) -> float:
        """Frames per second of wall time."""
        return self.frames / self.seconds


def run_offline(
    engine: Engine, frames: Sequence[Pixels], *, duration_s: float, clock: Clock = _WALL_CLOCK
) -> OfflineRun:
    """Keep all slots of an engine busy for `duration_s` seconds."""
    cycle = itertools.cycle(frames)
    # The first frame prepares a slot.
    warm_up = sum(1 for _ in keep_slots_busy(engine, itertools.islice(cycle, engine.slots)))
    began = clock.now_ns()
    done = sum(1 for _ in keep_slots_busy(engine, _take_until(cycle, began + round(1e9 * duration_s), clock)))
    return OfflineRun(frames=done, seconds=(clock.now_ns() - began) / 1e9, warm_up_frames=warm_up)


def keep_slots_busy(engine: Engine, frames: Iterator[Pixels]) -> Iterator[Pixels]:
    """Restore frames with as many in work as the engine has slots, and yield the results in order."""
    in_flight = 0
    for frame in frames:
        engine.submit(frame)
        in_flight += 1
        if in_flight == engine.slots:
            yield engine.collect()
            in_flight -= 1
    for _ in range(in_flight):
        yield engine.collect()


def _take_until(frames: Iterator[Pixels], end_ns: int, clock: Clock) -> Iterator[Pixels]:
    yield next(frames)
    while clock.now_ns() < end_ns:
        yield next(frames)
