"""One picture on its way from a source to a sink."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Size: TypeAlias = tuple[int, int]
"""Width and height in pixels."""
Pixels: TypeAlias = NDArray[np.uint8]
"""uint8[H, W, 3] or uint8[N, H, W, 3], BGR, full range."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A picture, when it is to be shown, and when it was captured."""

    pixels: Pixels
    """uint8[H, W, 3] BGR."""
    pts: int
    """Presentation time in units of `time_base`."""
    time_base: Fraction
    """Seconds per tick of `pts`."""
    captured_at: float
    """`time.perf_counter()` when the source delivered it, seconds."""
    name: str | None = None
    """File name without suffix, for pictures that came from one."""

    @property
    def pts_seconds(self) -> float:
        return float(self.pts * self.time_base)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def with_pixels(self, pixels: Pixels) -> Frame:
        """The same moment with another picture."""
        return replace(self, pixels=pixels)


def require_memory(count: int, *, width: int, height: int) -> None:
    """Raise MemoryError where so many frames as codecs hold them do not fit.

    To be asked after a failure: FFmpeg and x264 often call a want of memory something else.
    """
    np.empty((count, height, width, 2), np.uint8)  # 4:2:0 takes 1.5 bytes a pixel, and there is more beside it
