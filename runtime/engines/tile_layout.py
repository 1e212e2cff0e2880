"""Positions and sizes of overlapping tiles along the sides of a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.errors import UsageError
from runtime.frame import Size

OVERLAP_PX = 32
"""Default overlap of neighbouring tiles in pixels."""
MIN_TILE_PX = 64
"""Smallest width and height of a tile that a user may ask for, in pixels."""
_GRID_PX = 32
"""Tiles start at multiples of this: networks divide the frame by 4 (`edge`) or 32 (`resnet_unet`), and each tile then
has the same grid as the whole frame."""


def require_tile(tile: Size | None, overlap_px: int) -> None:
    """Raise UsageError if tiles of this width and height in pixels are too small for the overlap."""
    if overlap_px < 0 or (tile and (min(tile) < MIN_TILE_PX or 2 * overlap_px > min(tile))):
        raise UsageError(
            f"tiles must be at least {MIN_TILE_PX} pixels wide and high, and twice the overlap, "
            f"got {tile} and {overlap_px}",
            hint="use larger tiles or a smaller overlap",
        )


@dataclass(frozen=True)
class TileLayout:
    """Positions of the tiles along one side of a frame, in pixels."""

    length: int
    """Side of the frame; longer than the frame itself if the last tile ends beyond it."""
    side: int
    """Side of every tile."""
    starts: list[int]
    """First row or column of each tile, a multiple of `_GRID_PX` where tiles are large enough for that."""

    @classmethod
    def create(
        cls, length: int, wanted: int, limits: tuple[int, int], overlap: int, *, multiple_of: int = 1
    ) -> TileLayout:
        """Return the layout for a side of `length` pixels, which is a multiple of `multiple_of`.

        `wanted`: side of a tile; `limits`: smallest and largest side that the engine accepts; `overlap`: smallest
        overlap of neighbouring tiles. Sides and starts are multiples of `multiple_of`, which is 2 for 4:2:0.
        """
        smallest = limits[0] + -limits[0] % multiple_of
        wanted, largest = (side - side % multiple_of for side in (wanted, limits[1]))
        if smallest <= length <= min(wanted, largest):
            return cls(length, length, [0])
        side = min(max(wanted, smallest), largest)
        grid = _GRID_PX if side - overlap >= _GRID_PX else multiple_of
        step = max(1, (side - overlap) // grid) * grid
        count = 1 + max(0, -(-(length - side) // step))
        if count > 1:  # the smallest step that still covers the frame: the last tile ends least beyond it
            step = -(-(length - side) // ((count - 1) * grid)) * grid
        return cls(side + (count - 1) * step, side, [index * step for index in range(count)])

    def weights(self, overlap: int) -> NDArray[np.float32]:
        """Return the blending weights across a tile, float32[side] in (0, 1]: rising over the overlap, 1, falling."""
        distance = np.minimum(np.arange(self.side), np.arange(self.side)[::-1]) + 1
        return np.minimum(1, distance / (overlap + 1)).astype(np.float32)

    def bands(self) -> Iterator[tuple[int, int]]:
        """Yield the start of each tile and the length up to the start of the next one, or to the end."""
        for start, next_start in zip(self.starts, [*self.starts[1:], self.length], strict=True):
            yield start, next_start - start
