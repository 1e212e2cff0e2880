"""The shapes in which frames are put to engines: one after the other, at fixed times, all slots busy.

The shapes are those of MLPerf Inference (Reddi et al. 2020: single-stream, server, offline); what they give here is
no MLPerf result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.clock import Clock, WallClock
from runtime.engines.base import Engine
from runtime.frame import Pixels

BLOCK = 4
"""Queries of one engine, at least, before the next has its turn."""
BLOCK_S = 0.05
"""And for about so long, so that fast engines do not spend their time with pauses."""
_LONGEST_BLOCK = 1000
_PILOT = 3
PAUSE_S = 0.03
"""Before a block where engines take turns: threads of the one before spin for a while after their last frame."""
_WINDOW = 5
_STEADY = 0.95
"""Warm is an engine whose last few queries took no less than this share of the few before them."""
_LONGEST_WARM_UP_S = 60.0
_WALL = WallClock()
Query = Callable[[], object]
"""Restores one frame."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much is asked of each engine at least: both must be met."""

    min_queries: int = 128
    min_duration_s: float = 10.0
    """Of the queries of each engine, pauses not counted."""
    warm_up_s: float = 1.0
    min_rounds: int = 1
    """Of turns, where engines are compared."""

    def __post_init__(self) -> None:
        if min(self.min_queries, self.min_rounds) < 1 or self.min_duration_s < 0 or self.warm_up_s < 0:
            raise ValueError(f"expected at least one query and round and no negative times, got {self}")


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """What was left out before measuring."""

    queries: int
    seconds: float
    first_ms: float
    """The very first frame: kernels are chosen, memory is taken."""
    steady: bool
    """Whether queries had stopped getting faster."""


def warm_up(engine: Engine, frames: Sequence[Pixels], *, least_s: float, clock: Clock = _WALL) -> WarmUp:
    """Query until so many seconds have passed and queries get no faster, or for a minute."""
    times: list[float] = []
    query = asking(engine.infer, frames)
    began = clock.now_ns()
    while True:
        times += [_timed(query, clock) for _ in range(_WINDOW)]
        seconds = (clock.now_ns() - began) / 1e9
        last, before = np.median(times[-_WINDOW:]), np.median(times[-2 * _WINDOW : -_WINDOW] or [np.inf])
        steady = bool(last >= _STEADY * before)
        if (seconds >= least_s and steady) or seconds > max(_LONGEST_WARM_UP_S, least_s):
            return WarmUp(queries=len(times), seconds=round(seconds, 6), first_ms=round(times[0], 4), steady=steady)


def single_stream(
    engines: Sequence[Engine], frames: Sequence[Pixels], load: Load, *, clock: Clock = _WALL
) -> list[NDArray[np.float64]]:
    """The next query when the one before is done, engines in turn; as `in_turns`. `frames`: uint8[1, H, W, 3] BGR."""
    return in_turns([asking(engine.infer, frames) for engine in engines], load, clock=clock)


def asking(restore: Callable[[Pixels], Pixels], frames: Sequence[Pixels]) -> Query:
    """One frame after the other to whatever restores it, for `in_turns`."""
    turns = itertools.cycle(frames)
    return lambda: restore(next(turns))


def in_turns(
    queries: Sequence[Query], load: Load, *, blocks: Sequence[int] = (), clock: Clock = _WALL
) -> list[NDArray[np.float64]]:
    """Milliseconds, float64[rounds, queries in a block], of each kind of query; `blocks` sets how many these are.

    They take turns in blocks, in the other order every second round (A B, B A), so that a machine that grows
    slower does so for all of them. Where there are several, a block begins after a pause with a query that is not
    counted, which wakes the engine's threads.
    """
    sizes = blocks or [_block_size(query, clock) for query in queries]
    rounds: list[list[list[float]]] = [[] for _ in queries]
    while not all(map(partial(_enough, load=load), rounds)):
        order = range(len(queries)) if len(rounds[0]) % 2 == 0 else reversed(range(len(queries)))
        for index in order:
            if len(queries) > 1:
                clock.sleep(PAUSE_S)
                queries[index]()
            rounds[index].append([_timed(queries[index], clock) for _ in range(sizes[index])])
    return [np.array(each) for each in rounds]


def _block_size(query: Query, clock: Clock) -> int:
    pilot_ms = float(np.median([_timed(query, clock) for _ in range(_PILOT)]))
    return int(np.clip(1e3 * BLOCK_S / max(pilot_ms, 1e-6), BLOCK, _LONGEST_BLOCK))


def _enough(blocks: Sequence[Sequence[float]], *, load: Load) -> bool:
    return (
        len(blocks) >= load.min_rounds
        and sum(map(len, blocks)) >= load.min_queries
        and sum(map(sum, blocks)) >= 1e3 * load.min_duration_s
    )


@dataclass(frozen=True, kw_only=True)
class Scheduled:
    """Queries at fixed times. Their latency counts from when they were due, not from when they were sent.

    A stall then shows in every query that had to wait for it (Tene: coordinated omission).
    """

    rate_fps: float
    latency_ms: NDArray[np.float64]
    """From due to done."""
    from_sent_ms: NDArray[np.float64]
    """From sent to done: what would be told if the queries that waited were overlooked."""
    seconds: float

    @property
    def late(self) -> int:
        """Queries that were not done when the next was due."""
        return int((self.latency_ms > 1e3 / self.rate_fps).sum())

    @property
    def held(self) -> bool:
        """Whether the last tenth of the queries waited no longer than one period: the queue does not grow."""
        tail = (self.latency_ms - self.from_sent_ms)[-max(1, len(self.latency_ms) // 10) :]
        return bool(np.median(tail) <= 1e3 / self.rate_fps)


def at_rate(
    engine: Engine, frames: Sequence[Pixels], *, rate_fps: float, queries: int, clock: Clock = _WALL
) -> Scheduled:
    """One query every 1 / `rate_fps` seconds; those that become due while the engine works wait for it."""
    period_ns = 1e9 / rate_fps
    latency, from_sent = [], []
    began = clock.now_ns()
    for index, frame in zip(range(queries), itertools.cycle(frames), strict=False):
        due = began + round(index * period_ns)
        if (ahead := due - clock.now_ns()) > 0:
            clock.sleep(ahead / 1e9)
        sent = clock.now_ns()
        engine.infer(frame)
        done = clock.now_ns()
        latency.append((done - due) / 1e6)
        from_sent.append((done - sent) / 1e6)
    return Scheduled(
        rate_fps=rate_fps,
        latency_ms=np.array(latency),
        from_sent_ms=np.array(from_sent),
        seconds=(clock.now_ns() - began) / 1e9,
    )


def offline(engine: Engine, frames: Sequence[Pixels], *, duration_s: float, clock: Clock = _WALL) -> tuple[int, float]:
    """How many frames in how many seconds with all slots busy, from the first submitted to the last collected."""
    turns = itertools.cycle(frames)
    for _ in _through(engine, itertools.islice(turns, engine.slots)):  # each is prepared by its first frame
        pass
    began = clock.now_ns()
    done = sum(1 for _ in _through(engine, _for_so_long(turns, began + round(1e9 * duration_s), clock)))
    return done, (clock.now_ns() - began) / 1e9


def _through(engine: Engine, frames: Iterator[Pixels]) -> Iterator[Pixels]:
    under_way = 0
    for frame in frames:
        engine.submit(frame)
        under_way += 1
        if under_way == engine.slots:
            yield engine.collect()
            under_way -= 1
    for _ in range(under_way):
        yield engine.collect()


def _for_so_long(frames: Iterator[Pixels], end_ns: int, clock: Clock) -> Iterator[Pixels]:
    yield next(frames)
    while clock.now_ns() < end_ns:
        yield next(frames)


def _timed(query: Query, clock: Clock) -> float:
    began = clock.now_ns()
    query()
    return (clock.now_ns() - began) / 1e6
