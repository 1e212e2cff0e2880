"""Whether what an engine gives can be a sharpened picture of what it got."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import NumbersError
from runtime.frame import Pixels

_STEP = 5
"""Every fifth row and column is looked at: a 25th of the pixels. Networks that work on patches of 4 or 8 pixels
are so seen at every place of a patch."""
# At least 4.7 times the most that an earlier bundled engine did on 271 frames of six real sources: 0.10 %, 1.4 %,
# 3.4 codes.
BLANK_SHARE = 0.005
_BLANK_FROM = 64
"""A power of two, as `_any_bits` needs."""
SATURATED_SHARE = 0.10
CAST_CODES = 16.0


class OutputGuard:
    """Passes frames on as they were where the engine's output cannot be right, and counts them.

    Engines turn NaN into black; so a share of `BLANK_SHARE` of pixels that were not dark and are
    wholly black now counts as NaN. A share of samples at 0 or 255 that grew by more than
    `SATURATED_SHARE`, and a mean of any colour that moved by more than `CAST_CODES` codes, count
    as well: deblurring keeps both. With `strict` it raises NumbersError instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.passed = 0
        """Frames that went on as they were."""
        self.first_reason = ""
        self._strict = strict

    def __call__(self, blurred: Pixels, restored: Pixels) -> Pixels:
        """`restored`, or `blurred` if that cannot be; both uint8[H, W, 3] BGR."""
        reason = fault(blurred, restored)
        if not reason:
            return restored
        if self._strict:
            raise NumbersError(f"engine gave a frame that cannot be right ({reason})", hint="leave out --strict")
        self.passed += 1
        self.first_reason = self.first_reason or reason
        return blurred


def fault(blurred: Pixels, restored: Pixels) -> str:
    """What is wrong with a result, in a few words; empty if nothing."""
    before, after = (np.ascontiguousarray(frame[::_STEP, ::_STEP]) for frame in (blurred, restored))
    blank = np.mean((_any_bits(after) == 0) & (_any_bits(before) >= _BLANK_FROM))
    if blank > BLANK_SHARE:
        return f"{blank:.1%} of its pixels are blank, as NaN gives"
    saturated = [np.count_nonzero((frame == 0) | (frame == 255)) / frame.size for frame in (before, after)]
    if saturated[1] - saturated[0] > SATURATED_SHARE:
        return f"{saturated[1]:.0%} of it is saturated, the input {saturated[0]:.0%}"
    moved = np.subtract(cv2.mean(after), cv2.mean(before))[:3]
    worst = int(np.argmax(np.abs(moved)))
    if abs(moved[worst]) > CAST_CODES:
        return f"{('blue', 'green', 'red')[worst]} moved by {moved[worst]:+.0f} codes"
    return ""


def _any_bits(frame: Pixels) -> NDArray[np.uint8]:
    """The bits that any colour of a pixel has: none where it is black, and no less than the greatest colour's.

    Against a power of two that is as good as the greatest colour, and much faster.
    """
    bits: NDArray[np.uint8] = frame[..., 0] | frame[..., 1] | frame[..., 2]
    return bits
