"""Frames in overlapping tiles, for engines that do not take them whole."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.engines.base import Engine
from runtime.errors import OutOfMemoryError, UsageError
from runtime.frame import Pixels, Size
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
        require_tile(tile, overlap_px)
        self._engine, self._tile, self._overlap_px, self._say = engine, tile, overlap_px, say
        self._range = engine.spec
        self._under_way: deque[tuple[Pixels, Pixels | None]] = deque()
        """A batch and its result, or None where the engine itself has it."""

    def __enter__(self) -> TiledEngine:  # noqa: PYI034 - Self is new in Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, frames: Pixels) -> Pixels:
        """Restore one frame uint8[H, W, 3] or a batch uint8[N, H, W, 3], BGR; the result has the same shape.

        Raises ValueError for another shape or dtype, and what `Engine.infer` raises.
        """
        if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3 or not frames.size:
            raise ValueError(
                f"expected uint8[H, W, 3] or uint8[N, H, W, 3] in BGR order, got {frames.dtype}{list(frames.shape)}"
            )
        return self.infer(frames) if frames.ndim == 4 else self.infer(frames[np.newaxis])[0]

    @property
    def spec(self) -> EngineSpec:
        return dataclasses.replace(self._range, width=(1, _LARGEST), height=(1, _LARGEST))

    @property
    def backend(self) -> str:
        return self._engine.backend + (f", tiles of {self._tile[0]}x{self._tile[1]}" if self._tile else "")

    @property
    def provider(self) -> str:
        return str(getattr(self._engine, "provider", ""))

    @property
    def slots(self) -> int:
        return self._engine.slots

    def infer(self, batch: Pixels) -> Pixels:
        self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        height, width = batch.shape[1:3]
        if self._takes(width, height):
            try:
                self._engine.submit(batch)
            except OutOfMemoryError as error:
                self._halve(batch, error)
            else:
                self._under_way.append((batch, None))
                return
        for index, (each, result) in enumerate(self._under_way):  # for tiles it must have nothing under way
            self._under_way[index] = (each, self._collected(each) if result is None else result)
        self._under_way.append((batch, self._in_tiles(batch)))

    def collect(self) -> Pixels:
        batch, result = self._under_way.popleft()
        return self._collected(batch) if result is None else result

    def _collected(self, batch: Pixels) -> Pixels:
        try:
            return self._engine.collect()
        except OutOfMemoryError as error:  # of an engine on the CPU, which may infer while others are under way
            self._halve(batch, error)
            return self._in_tiles(batch)

    def _halve(self, batch: Pixels, error: OutOfMemoryError) -> None:
        """Take frames in tiles of half this one's size from now on, once; or raise the error that led here."""
        height, width = batch.shape[1:3]
        if not self._takes(width, height):
            return  # a frame before it has led here already
        if self._tile or min(width, height) < 4 * LEAST_TILE_PX:
            raise error
        self._tile = (width // 2, height // 2)
        self._say(f"warning: not enough memory for {width}x{height}, taken in tiles of half that size")

    def close(self) -> None:
        self._engine.close()

    def _takes(self, width: int, height: int) -> bool:
        """Whether a frame goes to the engine whole."""
        fits = not self._tile or (width <= self._tile[0] and height <= self._tile[1])
        return fits and self._range.accepts(width=width, height=height)

    def _in_tiles(self, batch: Pixels) -> Pixels:
        """All tiles have one size, as engines prepare for each size anew."""
        height, width = batch.shape[1:3]
        wanted = self._tile[::-1] if self._tile else (_LARGEST, _LARGEST)
        rows, columns = (
            _Cut.of(length, side, limits, self._overlap_px)
            for length, side, limits in zip(
                (height, width), wanted, (self._range.height, self._range.width), strict=True
            )
        )
        missing = ((0, 0), (0, rows.length - height), (0, columns.length - width), (0, 0))
        padded = np.pad(batch, missing, mode="edge")
        weights = np.outer(rows.ramp(self._overlap_px), columns.ramp(self._overlap_px))[:, :, np.newaxis]
        total = np.zeros((*padded.shape[1:3], 1), np.float32)
        blended = np.zeros(padded.shape, np.float32)
        for top in rows.starts:
            for left in columns.starts:
                part = np.s_[:, top : top + rows.side, left : left + columns.side]
                blended[part] += weights * self._engine.infer(np.ascontiguousarray(padded[part]))
                total[part[1:]] += weights
        result: Pixels = np.rint(blended / total).astype(np.uint8)
        return result[:, :height, :width]


def require_tile(tile: Size | None, overlap_px: int) -> None:
    """Raise UsageError if tiles of this width and height in pixels are too small for the overlap."""
    if overlap_px < 0 or (tile and (min(tile) < LEAST_TILE_PX or 2 * overlap_px > min(tile))):
        raise UsageError(
            f"tiles must be at least {LEAST_TILE_PX} pixels wide and high, and twice the overlap, "
            f"got {tile} and {overlap_px}",
            hint="give a larger --tile or a smaller --overlap",
        )


@dataclasses.dataclass(frozen=True)
class _Cut:
    """How one side of a frame is cut into tiles."""

    length: int
    """Of the frame, continued by its last row or column where tiles go beyond it."""
    side: int
    """Of every tile."""
    starts: list[int]
    """Multiples of `_GRID_PX`: networks that work at a fraction of the resolution then see the same
    grid as in the whole frame."""

    @classmethod
    def of(cls, length: int, wanted: int, limits: tuple[int, int], overlap: int) -> _Cut:
        """`wanted`: pixels of a tile; `limits`: what the engine takes."""
        least, most = limits
        if least <= length <= min(wanted, most):
            return cls(length, length, [0])
        side = min(max(wanted, least), most)
        grid = _GRID_PX if side - overlap >= _GRID_PX else 1
        step = max(1, (side - overlap) // grid) * grid
        count = 1 + max(0, -(-(length - side) // step))
        if count > 1:  # no further beyond the frame than it takes
            step = -(-(length - side) // ((count - 1) * grid)) * grid
        return cls(side + (count - 1) * step, side, [index * step for index in range(count)])

    def ramp(self, overlap: int) -> NDArray[np.float32]:
        """Weights across a tile: rising over the overlap, then one, then falling; nowhere zero."""
        distance = np.minimum(np.arange(self.side), np.arange(self.side)[::-1]) + 1
        return np.minimum(1, distance / (overlap + 1)).astype(np.float32)
