"""Frames on their way from a source to a sink."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # it converts between pixels, and needs this module
    from runtime.yuv420 import Yuv420

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""
Pixels: TypeAlias = NDArray[np.uint8]
"""uint8[H, W, 3] or uint8[N, H, W, 3], BGR, full range."""


Image: TypeAlias = "Pixels | Yuv420"
"""One image as BGR or as planes."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An image with its presentation time and its time of capture."""

    pixels: Image
    """uint8[H, W, 3] BGR; planes only if the source was asked for them."""
    pts: int
    """Presentation time in units of `time_base`."""
    time_base: Fraction
    """Seconds per tick of `pts`."""
    captured_at: float
    """`time.perf_counter()` in seconds when the source delivered it."""
    file: Path | None = None
    """Image file that the frame was read from; None for frames of videos and cameras."""

    @property
    def pts_seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        if isinstance(self.pixels, np.ndarray):
            return self.pixels.shape[1], self.pixels.shape[0]
        return self.pixels.size

    @property
    def bgr(self) -> Pixels:
        """uint8[H, W, 3] BGR; planes are converted at the first use."""
        return as_bgr(self.pixels)

    def with_pixels(self, pixels: Image) -> Frame:
        """Return a frame with the same times and file, and other pixels."""
        return replace(self, pixels=pixels)


def as_bgr(image: Image) -> Pixels:
    """Return an image as uint8[H, W, 3] BGR, full range."""
    return image if isinstance(image, np.ndarray) else image.bgr


def require_memory(count: int, *, width: int, height: int) -> None:
    """Raise MemoryError if memory does not suffice for `count` decoded frames, RuntimeError if not for a thread.

    Call it after a failure: FFmpeg and x264 often report a lack of memory as something else.
    """
    np.empty((count, height, width, 2), np.uint8)  # 4:2:0 takes 1.5 bytes a pixel; the codec needs some more
    thread = Thread(target=int)
    thread.start()
    thread.join()
