"""Time measurements of engines that run alternately: a machine that becomes slower is then slower for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter, sleep
from typing import TypeVar

import cv2
import numpy as np

from runtime.engines.base import Engine
from runtime.frame import Pixels, Size
from runtime.spec import PixelFormat

T = TypeVar("T")
PAUSE_S = 0.03
"""Seconds of rest before each block: threads of some libraries spin for a while after a frame and slow others down."""
_MIN_ROUNDS = 3
"""Smallest number of rounds of `median_ms_per_frame`; the first is a warm-up and does not count."""
_FRAMES_PER_SLOT = 4
"""Largest number of frames for each slot of an engine in one block of `median_ms_per_frame`."""
_BLOCK_S = 1.0
"""Seconds after which a block begins no further frame: large networks take seconds for each."""


def interleave(
    blocks: Sequence[Callable[[], T]],
    *,
    has_enough: Callable[[list[list[T]]], bool],
    wake: Callable[[int], object],
    pause: Callable[[float], None] = sleep,
) -> list[list[T]]:
    """Run blocks in alternating rounds and return the results of each block.

    Every second round runs in reverse order (A B, B A). With more than one block, each begins with a pause of `PAUSE_S`
    and `wake(index)`, which wakes the threads of its engine. Rounds end when `has_enough` accepts the results so far.
    """
    results: list[list[T]] = [[] for _ in blocks]
    while not has_enough(results):
        order = range(len(blocks)) if len(results[0]) % 2 == 0 else reversed(range(len(blocks)))
        for index in order:
            if len(blocks) > 1:
                pause(PAUSE_S)
                wake(index)
            results[index].append(blocks[index]())
    return results


def trial_frame(size: Size, pixels: PixelFormat = "bgr") -> Pixels:
    """Return a batch of one frame of smooth colours for time measurements; `size` is (width, height).

    No engine computes it faster than a photograph. Odd sides become even ones for `yuv420`.
    """
    coarse = np.random.default_rng(0).integers(0, 256, (18, 32, 3), dtype=np.uint8)
    if pixels == "yuv420":
        width, height = (side + side % 2 for side in size)
        size, coarse = (width, height * 3 // 2), coarse[:, :, 0]
    return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.uint8)[np.newaxis]


def median_ms_per_frame(
    engines: Sequence[Engine], frame: Pixels | Sequence[Pixels], *, seconds: float = 0.0
) -> list[float]:
    """Return the median milliseconds per batch for each engine.

    `frame`: one batch, in the form that the engines take, or one for each engine. The engines run alternately with all
    slots busy, for at least three rounds and until `seconds` have passed.
    """
    frames = [frame] * len(engines) if isinstance(frame, np.ndarray) else frame
    end = perf_counter() + seconds
    times_ms = interleave(
        [_make_block(*pair) for pair in zip(engines, frames, strict=True)],
        has_enough=lambda times: len(times[0]) >= _MIN_ROUNDS and perf_counter() >= end,
        wake=lambda index: measure_ms_per_frame(engines[index], frames[index], 1),
    )
    return [median(engine_times_ms[1:]) for engine_times_ms in times_ms]


def _make_block(engine: Engine, frame: Pixels) -> Callable[[], float]:
    return lambda: measure_ms_per_frame(engine, frame, _FRAMES_PER_SLOT * engine.slots)


def measure_ms_per_frame(engine: Engine, frame: Pixels, count: int) -> float:
    """Return the milliseconds per frame with all slots busy, over `count` frames or those that begin in `_BLOCK_S`."""
    start = perf_counter()
    submitted = 0
    while submitted < count and (submitted < engine.slots or perf_counter() - start < _BLOCK_S):
        if submitted >= engine.slots:
            engine.collect()
        engine.submit(frame)
        submitted += 1
    for _ in range(min(submitted, engine.slots)):
        engine.collect()
    return 1e3 * (perf_counter() - start) / submitted
