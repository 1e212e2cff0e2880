"""Time per frame of several engines, measured on this machine in alternating rounds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from time import perf_counter, sleep

import cv2
import numpy as np

from runtime.engines.base import Engine
from runtime.frame import Pixels, Size

_MIN_ROUNDS = 3
"""Smallest number of rounds; the first is a warm-up and does not count."""
_FRAMES_PER_ROUND = 4
"""Frames for each slot of an engine in one round, before the next engine runs."""
_PAUSE_S = 0.05
"""Pause before each engine: threads of some libraries spin for a while after a frame and slow the next engine down."""


def trial_frame(size: Size) -> Pixels:
    """Return a frame uint8[1, H, W, 3] BGR of smooth colours for time measurements; `size` is (width, height).

    No engine computes it faster than a photograph.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.uint8)[np.newaxis]


def median_ms_per_frame(engines: Sequence[Engine], frame: Pixels, *, seconds: float = 0.0) -> list[float]:
    """Return the median milliseconds per batch `frame` (uint8[N, H, W, 3] BGR) for each engine.

    The engines run in alternating rounds, so that a machine that becomes slower (heat, other programs) is slower for
    all of them. There are at least three rounds, and new rounds start until `seconds` have passed.
    """
    times_ms: list[list[float]] = [[] for _ in engines]
    end = perf_counter() + seconds
    while len(times_ms[0]) < _MIN_ROUNDS or perf_counter() < end:
        for engine, engine_times_ms in zip(engines, times_ms, strict=True):
            sleep(_PAUSE_S)
            _measure_ms_per_frame(engine, frame, 1)  # wakes the threads of the library
            engine_times_ms.append(_measure_ms_per_frame(engine, frame, _FRAMES_PER_ROUND * engine.slots))
    return [median(engine_times_ms[1:]) for engine_times_ms in times_ms]


def _measure_ms_per_frame(engine: Engine, frame: Pixels, count: int) -> float:
    """Return the milliseconds per frame over `count` frames with all slots busy."""
    start = perf_counter()
    for index in range(count):
        if index >= engine.slots:
            engine.collect()
        engine.submit(frame)
    for _ in range(min(count, engine.slots)):
        engine.collect()
    return 1e3 * (perf_counter() - start) / count
