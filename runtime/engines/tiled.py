"""Frames in overlapping tiles, for engines that do not take them whole."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.arguments import Size
from runtime.engines.base import Engine, Overlapping
from runtime.errors import OutOfMemoryError, UsageError
from runtime.frame import Pixels
from runtime.spec import EngineSpec

OVERLAP_PX = 32
LEAST_TILE_PX = 64
_LARGEST = 65_535
_GRID_PX = 32
"""What networks divide the frame by: 4 (`edge`), 32 (`resnet_unet`)."""


class TiledEngine:
    """An engine for frames of any size.

    A frame that the engine takes goes to it whole, unless `tile` (width, height) is given.
    Others are cut into tiles that overlap by at least `overlap_px`, and what comes back is blended
    across the overlap with weights that rise and fall linearly; a frame smaller than the engine's
    least is continued by its last row and column. Where memory does not suffice for a whole frame,
    tiles of half its size are tried once, which `say` is told.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tile: Size | None = None,
        overlap_px: int = OVERLAP_PX,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        if tile and (min(tile) < LEAST_TILE_PX or overlap_px < 0 or 2 * overlap_px > min(tile)):
            raise UsageError(
                f"tiles must be at least {LEAST_TILE_PX} pixels wide and high, and twice the overlap, "
                f"got {tile[0]}x{tile[1]} and {overlap_px}",
                hint="give a larger --tile or a smaller --overlap",
            )
        self._engine, self._tile, self._overlap_px, self._say = engine, tile, overlap_px, say
        self._range = engine.spec
        self._ready: deque[Pixels | None] = deque()
        """What was submitted: a result, or None where the engine itself has it."""

    @property
    def spec(self) -> EngineSpec:
        return dataclasses.replace(self._range, width=(1, _LARGEST), height=(1, _LARGEST))

    @property
    def backend(self) -> str:
        return self._engine.backend + (f", tiles of {self._tile[0]}x{self._tile[1]}" if self._tile else "")

    @property
    def slots(self) -> int:
        return self._engine.slots if isinstance(self._engine, Overlapping) else 1

    def infer(self, batch: Pixels) -> Pixels:
        height, width = batch.shape[1:3]
        if self._takes(width, height):
            try:
                return self._engine.infer(batch)
            except OutOfMemoryError:
                if self._tile or min(width, height) < 4 * LEAST_TILE_PX:
                    raise
                self._tile = (width // 2, height // 2)
                self._say(f"warning: not enough memory for {width}x{height}, taken in tiles of half that size")
        return self._in_tiles(batch)

    def submit(self, batch: Pixels) -> None:
        """As `TensorRtEngine.submit`."""
        if self._takes(batch.shape[2], batch.shape[1]) and isinstance(self._engine, Overlapping):
            self._engine.submit(batch)
            self._ready.append(None)
            return
        if isinstance(self._engine, Overlapping):  # it must have nothing under way to infer
            for index, result in enumerate(self._ready):
                self._ready[index] = self._engine.collect() if result is None else result
        self._ready.append(self.infer(batch))

    def collect(self) -> Pixels:
        result = self._ready.popleft()
        if result is None:
            assert isinstance(self._engine, Overlapping)
            return self._engine.collect()
        return result

    def close(self) -> None:
        self._engine.close()

    def _takes(self, width: int, height: int) -> bool:
        """Whether a frame goes to the engine whole."""
        fits = not self._tile or (width <= self._tile[0] and height <= self._tile[1])
        return fits and self._range.accepts(width=width, height=height)

    def _in_tiles(self, batch: Pixels) -> Pixels:
        height, width = batch.shape[1:3]
        limits = (self._range.height, self._range.width)
        wanted = self._tile[::-1] if self._tile else (_LARGEST, _LARGEST)
        missing = [max(0, least - length) for (least, _), length in zip(limits, (height, width), strict=True)]
        if any(missing):
            batch = np.pad(batch, ((0, 0), (0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
        rows, columns = (
            _spans(length, min(length, max(side, least), most), self._overlap_px, most=most)
            for length, side, (least, most) in zip(batch.shape[1:3], wanted, limits, strict=True)
        )
        total = np.zeros((*batch.shape[1:3], 1), np.float32)
        blended = np.zeros(batch.shape, np.float32)
        for top, bottom in rows:
            for left, right in columns:
                ramps = (_ramp(length, self._overlap_px) for length in (bottom - top, right - left))
                weights = np.outer(*ramps)[:, :, np.newaxis]
                part = np.s_[:, top:bottom, left:right]
                blended[part] += weights * self._engine.infer(np.ascontiguousarray(batch[part]))
                total[part[1:]] += weights
        result: Pixels = np.rint(blended / total).astype(np.uint8)
        return result[:, :height, :width]


def _spans(length: int, side: int, overlap: int, *, most: int) -> list[tuple[int, int]]:
    """First pixel and end of each tile, evenly spaced.

    Tiles begin at multiples of `_GRID_PX`: networks that work at a fraction of the resolution see
    the same grid as in the whole frame. The last one grows by the rest, if it may.
    """
    overlap = min(overlap, side - 1)
    count = 1 + max(0, -(-(length - side) // (side - overlap)))
    spans = []
    for index in range(count):
        start = index * (length - side) // max(1, count - 1)
        aligned = start - start % _GRID_PX
        stop = start + side if index < count - 1 else length
        spans.append((aligned, stop) if stop - aligned <= most else (start, stop))
    return spans


def _ramp(side: int, overlap: int) -> NDArray[np.float32]:
    """Weights across a tile: rising over the overlap, then one, then falling; nowhere zero."""
    distance = np.minimum(np.arange(side), np.arange(side)[::-1]) + 1
    return np.minimum(1, distance / (overlap + 1)).astype(np.float32)
