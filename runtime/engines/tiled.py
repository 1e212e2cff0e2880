"""Frames of any size in overlapping tiles, for engines that do not accept them whole."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.colour import BT709
from runtime.engines.base import Engine, frame_size, require_batch, require_same_shape
from runtime.engines.blending import Blender, cut_tile
from runtime.engines.tile_layout import MIN_TILE_PX, OVERLAP_PX, TileLayout, require_tile
from runtime.errors import OutOfMemoryError
from runtime.frame import Pixels, Size
from runtime.spec import EngineSpec
from runtime.yuv420 import Yuv420

_MAX_SIDE_PX = 65_535


class TiledEngine:
    """An engine that accepts frames of any size; one for planes accepts frames of any even size.

    A frame within the range of `engine` goes to it whole, unless `tile` (width, height) is given. Any other frame is
    cut into tiles that overlap by at least `overlap_px`. The results are blended across the overlap with weights that
    rise and fall linearly. A frame smaller than the smallest size of the engine is extended by repeating its last row
    and column.

    If memory does not suffice for a whole frame, this engine changes to tiles of half its size, once, and reports the
    change with `say`. Raises UsageError if `tile` or `overlap_px` is out of range.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        path: Path | None = None,
        tile: Size | None = None,
        overlap_px: int = OVERLAP_PX,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.path = path
        """File or address of the engine; the chosen file of a folder. None where it is not known."""
        require_tile(tile, overlap_px)
        self._engine, self._tile, self._overlap_px, self._say = engine, tile, overlap_px, say
        self._engine_spec = engine.spec
        self._submitted: deque[tuple[Pixels, Pixels | None]] = deque()
        """Submitted batches with their results; None while the result is still in the engine."""

    def __enter__(self) -> TiledEngine:  # noqa: PYI034 - Self is new in Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, frames: Pixels) -> Pixels:
        """Restore one frame uint8[H, W, 3] or a batch uint8[N, H, W, 3], BGR; the result has the same shape.

        An engine for planes gets planes with the colours of BT.709, and its result is converted back.

        Raises ValueError for another shape or dtype, and what `Engine.infer` raises.
        """
        if not isinstance(frames, np.ndarray):
            raise ValueError(  # noqa: TRY004 - as below
                f"expected uint8[H, W, 3] in BGR order, got {type(frames).__name__}; cv2.imread gives None for a file "
                "that it cannot read"
            )
        if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3 or not frames.size:
            raise ValueError(
                f"expected uint8[H, W, 3] or uint8[N, H, W, 3] in BGR order, got {frames.dtype}{list(frames.shape)}"
            )
        if self.spec.pixels == "yuv420":
            return self._restore_as_planes(frames) if frames.ndim == 3 else np.stack([self(frame) for frame in frames])
        return self.infer(frames) if frames.ndim == 4 else self.infer(frames[np.newaxis])[0]

    def _restore_as_planes(self, image: Pixels) -> Pixels:
        """Restore an image uint8[H, W, 3] BGR with an engine for planes; its chroma is halved on the way."""
        height, width = image.shape[:2]
        even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        planes = Yuv420.from_bgr(even, BT709)
        return planes.with_planes(self.infer(planes.planes[np.newaxis])[0]).bgr[:height, :width]

    @property
    def spec(self) -> EngineSpec:
        return dataclasses.replace(self._engine_spec, width=(1, _MAX_SIDE_PX), height=(1, _MAX_SIDE_PX))

    @property
    def backend(self) -> str:
        return self._engine.backend + (f", tiles of {self._tile[0]}x{self._tile[1]}" if self._tile else "")

    @property
    def provider(self) -> str:
        return self._engine.provider

    @property
    def slots(self) -> int:
        return self._engine.slots

    def infer(self, batch: Pixels) -> Pixels:
        self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        width, height = require_batch(batch, self._engine_spec.pixels)
        if self._fits_whole(width, height):
            try:
                self._engine.submit(batch)
            except OutOfMemoryError as error:
                self._use_smaller_tiles(batch, error)
            else:
                self._submitted.append((batch, None))
                return
        # Tiles need `infer`, which the engine allows only when no batch is submitted to it.
        for index, (earlier, result) in enumerate(self._submitted):
            self._submitted[index] = (earlier, self._collect_from_engine(earlier) if result is None else result)
        self._submitted.append((batch, self._infer_in_tiles(batch)))

    def collect(self) -> Pixels:
        batch, result = self._submitted.popleft()
        return self._collect_from_engine(batch) if result is None else result

    def close(self) -> None:
        self._engine.close()

    def _collect_from_engine(self, batch: Pixels) -> Pixels:
        try:
            return require_same_shape(self._engine_spec, batch, self._engine.collect())
        except OutOfMemoryError as error:
            # Only CPU engines raise this in `collect`, and they may `infer` while other batches are submitted.
            self._use_smaller_tiles(batch, error)
            return self._infer_in_tiles(batch)

    def _use_smaller_tiles(self, batch: Pixels, error: OutOfMemoryError) -> None:
        """Change to tiles of half the size of this batch's frames; raise `error` if that is not possible."""
        width, height = frame_size(batch)
        if not self._fits_whole(width, height):
            return  # an earlier frame has caused the change
        if self._tile or min(width, height) < 4 * MIN_TILE_PX:
            raise error
        self._tile = (width // 2, height // 2)
        self._say(f"warning: not enough memory for {width}x{height}, taken in tiles of half that size")

    def _fits_whole(self, width: int, height: int) -> bool:
        """Return whether a frame goes to the engine without tiles."""
        fits_tile = not self._tile or (width <= self._tile[0] and height <= self._tile[1])
        return fits_tile and self._engine_spec.accepts(width=width, height=height)

    def _infer_in_tiles(self, batch: Pixels) -> Pixels:
        """Restore a batch in tiles of one size, because engines prepare for each size anew."""
        width, height = frame_size(batch)
        wanted = self._tile[::-1] if self._tile else (_MAX_SIDE_PX, _MAX_SIDE_PX)
        limits = self._engine_spec.height, self._engine_spec.width
        multiple_of = 2 if self._engine_spec.pixels == "yuv420" else 1
        rows, columns = (
            TileLayout.create(length, side, ends, self._overlap_px, multiple_of=multiple_of)
            for length, side, ends in zip((height, width), wanted, limits, strict=True)
        )
        result: Pixels = np.empty(batch.shape, np.uint8)
        blender = Blender(result, rows, columns, self._overlap_px)
        for top, step in rows.bands():
            for left in columns.starts:
                tile = cut_tile(batch, top, left, rows.side, columns.side)
                blender.add(require_same_shape(self._engine_spec, tile, self._engine.infer(tile)), left)
            blender.finish_rows(step)
        return result
