"""Tiles of BGR frames and of planes: cut from a batch, and their results blended into another one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from runtime.engines.base import frame_size
from runtime.engines.tile_layout import TileLayout
from runtime.frame import Pixels
from runtime.spec import frame_shape


def view_layers(batch: Pixels) -> list[Pixels]:
    """Return views [N, H, W, C] of a batch: BGR itself, or luma, U and V, of which U and V have half the sides."""
    if batch.ndim == 4:
        return [batch]
    width, height = frame_size(batch)
    chroma = batch[:, height:].reshape(len(batch), 2, height // 2, width // 2, 1)
    return [batch[:, :height, :, np.newaxis], chroma[:, 0], chroma[:, 1]]


def cut_tile(batch: Pixels, top: int, left: int, height: int, width: int) -> Pixels:
    """Return a tile of a batch of BGR or planes; what lies beyond the frame repeats its last row and column.

    For planes all four numbers are even.
    """
    shape = frame_shape("bgr" if batch.ndim == 4 else "yuv420", width=width, height=height)
    tile: Pixels = np.empty((len(batch), *shape), np.uint8)
    for layer, target in zip(view_layers(batch), view_layers(tile), strict=True):
        rows, columns = target.shape[1:3]
        y, x = top * rows // height, left * columns // width
        part = layer[:, y : y + rows, x : x + columns]
        if part.shape != target.shape:
            missing = ((0, 0), (0, rows - part.shape[1]), (0, columns - part.shape[2]), (0, 0))
            part = np.pad(part, missing, mode="edge")
        target[:] = part
    return tile


class Blender:
    """Blends tiles into `result`, a contiguous batch of frames, from top to bottom and from left to right."""

    def __init__(self, result: Pixels, rows: TileLayout, columns: TileLayout, overlap_px: int) -> None:
        sides = rows.weights(overlap_px), columns.weights(overlap_px)
        halves = [side.reshape(-1, 2).mean(axis=1) for side in sides] if result.ndim == 3 else []
        luma, *chroma = view_layers(result)
        self._layers = [
            _LayerBlender(luma, np.outer(*sides), 1, columns.length),
            *(_LayerBlender(layer, np.outer(*halves), 2, columns.length) for layer in chroma),
        ]

    def add(self, tile: Pixels, left: int) -> None:
        """Add a restored tile of the current band, which begins at this column."""
        for blender, layer in zip(self._layers, view_layers(tile), strict=True):
            blender.add(layer, left)

    def finish_rows(self, count: int) -> None:
        """Write the first rows of the current band, which the next band does not reach."""
        for blender in self._layers:
            blender.finish_rows(count)


class _LayerBlender:
    """Blends the tiles of one layer [N, H, W, C], of which a pixel stands for `pixel_px` of the frame on each side.

    Only the rows of the current band are kept as float32, so that a large frame needs little memory.
    """

    def __init__(self, result: Pixels, weights: NDArray[np.float32], pixel_px: int, columns: int) -> None:
        self._result, self._weights, self._pixel_px = result, weights[:, :, np.newaxis], pixel_px
        rows, columns = len(weights), columns // pixel_px
        self._sum = np.zeros((len(result), rows, columns, result.shape[-1]), np.float32)
        self._weight_sum = np.zeros((rows, columns, 1), np.float32)
        self._top = 0

    def add(self, tile: Pixels, left: int) -> None:
        columns = slice(left // self._pixel_px, left // self._pixel_px + self._weights.shape[1])
        self._sum[:, :, columns] += self._weights * tile
        self._weight_sum[:, columns] += self._weights

    def finish_rows(self, count: int) -> None:
        step, (height, width) = count // self._pixel_px, self._result.shape[1:3]
        finished = self._sum[:, : min(step, height - self._top), :width]
        finished /= self._weight_sum[: finished.shape[1], :width]
        self._result[:, self._top : self._top + step] = np.rint(finished, out=finished)
        for band in (self._sum.swapaxes(0, 1), self._weight_sum):
            band[:-step] = band[step:]
            band[-step:] = 0
        self._top += step
