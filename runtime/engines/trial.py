"""Engines timed against one another, here and now."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter, sleep

import cv2
import numpy as np

from runtime.engines.base import Engine
from runtime.frame import Pixels, Size

_ROUNDS = 3
"""At least; the first is not counted."""
_BLOCK = 4
"""Frames of one engine before the next has its turn."""
_REST_S = 0.05
"""Before a turn: threads of a library may spin for a while after a frame, and slow others down meanwhile."""


def trial_frame(size: Size) -> Pixels:
    """uint8[1, H, W, 3] of smooth colours, which no engine finds easier than a photograph."""
    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.uint8)[np.newaxis]


def median_ms(engines: Sequence[Engine], frame: Pixels, *, seconds: float = 0.0) -> list[float]:
    """Milliseconds of a frame on each engine, in turns, so that a machine that grows slower does so for all.

    At least a few rounds, and for so many seconds in all.
    """
    times: list[list[float]] = [[] for _ in engines]
    end = perf_counter() + seconds
    while len(times[0]) < _ROUNDS or perf_counter() < end:
        for engine, each in zip(engines, times, strict=True):
            sleep(_REST_S)
            _ms_a_frame(engine, frame, 1)  # wakes its threads
            each.append(_ms_a_frame(engine, frame, _BLOCK * engine.slots))
    return [median(each[1:]) for each in times]


def _ms_a_frame(engine: Engine, frame: Pixels, count: int) -> float:
    """With all slots busy."""
    began = perf_counter()
    for index in range(count):
        if index >= engine.slots:
            engine.collect()
        engine.submit(frame)
    for _ in range(min(count, engine.slots)):
        engine.collect()
    return 1e3 * (perf_counter() - began) / count
