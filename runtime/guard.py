"""Detection of engine outputs that cannot be a restored version of their input."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import NumbersError
from runtime.frame import Pixels

_STEP = 5
"""Distance of the rows and columns that are examined: a 25th of the pixels.

5 shares no factor with the patches of 4 or 8 pixels that networks work on, so every place of a patch is examined.
"""
# Limits: at least 4.7 times the largest change that an earlier bundled engine made on 271 frames of six real sources
# (0.10 %, 1.4 %, 3.4 codes).
MAX_BLANK_SHARE = 0.005
MAX_SATURATED_GROWTH = 0.10
MAX_MEAN_SHIFT_CODES = 16.0
_NOT_DARK_CODE = 64
"""Smallest 8-bit value of a pixel that counts as not dark; a power of two, because `_any_bits` needs that."""


class OutputGuard:
    """Replaces impossible results by their blurred input, and counts them.

    A result is impossible if

    - more than `MAX_BLANK_SHARE` of the pixels were not dark and are pure black now (engines turn NaN into black),
    - the share of samples at 0 or 255 grew by more than `MAX_SATURATED_GROWTH`, or
    - the mean of a colour moved by more than `MAX_MEAN_SHIFT_CODES` 8-bit codes.

    Deblurring changes none of these. With `strict`, an impossible result raises NumbersError instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.rejected = 0
        """Number of results that were replaced."""
        self.first_reason = ""
        """Reason of the first rejection; empty before."""
        self._strict = strict

    def __call__(self, blurred: Pixels, restored: Pixels) -> Pixels:
        """Return `restored`, or `blurred` if `restored` is impossible; both are uint8[H, W, 3] BGR."""
        reason = find_fault(blurred, restored)
        if not reason:
            return restored
        if self._strict:
            raise NumbersError(
                f"engine gave an impossible frame ({reason})", hint="check the engine, or do not be strict"
            )
        self.rejected += 1
        self.first_reason = self.first_reason or reason
        return blurred


def find_fault(blurred: Pixels, restored: Pixels) -> str:
    """Return in a few words why `restored` is impossible; an empty string if it is possible."""
    before, after = (np.ascontiguousarray(frame[::_STEP, ::_STEP]) for frame in (blurred, restored))
    blank = np.mean((_any_bits(after) == 0) & (_any_bits(before) >= _NOT_DARK_CODE))
    if blank > MAX_BLANK_SHARE:
        return f"{blank:.1%} of its pixels are blank, as after NaN"
    saturated = [np.count_nonzero((frame == 0) | (frame == 255)) / frame.size for frame in (before, after)]
    if saturated[1] - saturated[0] > MAX_SATURATED_GROWTH:
        return f"{saturated[1]:.0%} of it is saturated, {saturated[0]:.0%} of the input"
    shift = np.subtract(cv2.mean(after), cv2.mean(before))[:3]
    worst = int(np.argmax(np.abs(shift)))
    if abs(shift[worst]) > MAX_MEAN_SHIFT_CODES:
        return f"mean {('blue', 'green', 'red')[worst]} moved by {shift[worst]:+.0f} codes"
    return ""


def _any_bits(frame: Pixels) -> NDArray[np.uint8]:
    """Return the bitwise OR of a pixel's three colours.

    It is 0 only for black, and at least the largest colour. Comparing it with a power of two gives the same result as
    comparing the largest colour, and is much faster.
    """
    bits: NDArray[np.uint8] = frame[..., 0] | frame[..., 1] | frame[..., 2]
    return bits
