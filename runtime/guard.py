"""Detection of engine outputs that cannot be a restored version of their input."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.errors import NumbersError
from runtime.frame import Image, Pixels
from runtime.yuv420 import Yuv420

_STEP = 5
"""Distance of the rows and columns that are examined: a 25th of the pixels.

5 shares no factor with the patches of 4 or 8 pixels that networks work on, so every place of a patch is examined.
"""
# Limits: at least 8 times the largest change that the bundled INT8 engines for CPUs made on 103 frames of four real
# clips (no blank pixels, 1.2 %, 1.4 codes).
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
    - the mean of a colour, or of a plane, moved by more than `MAX_MEAN_SHIFT_CODES` 8-bit codes.

    Deblurring changes none of these. With `strict`, an impossible result raises NumbersError instead.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.rejected = 0
        """Number of results that were replaced."""
        self.first_reason = ""
        """Reason of the first rejection; empty before."""
        self._strict = strict

    def __call__(self, blurred: Image, restored: Image) -> Image:
        """Return `restored`, or `blurred` if `restored` is impossible; both are BGR, or both planes."""
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


def find_fault(blurred: Image, restored: Image) -> str:
    """Return in a few words why `restored` is impossible; an empty string if it is possible."""
    before, after = (_sample(image) for image in (blurred, restored))
    names = ("luma", "U", "V") if isinstance(restored, Yuv420) else ("blue", "green", "red")
    brightness = [planes[0] if names[0] == "luma" else _any_bits(planes) for planes in (before, after)]
    blank = np.mean((brightness[1] == 0) & (brightness[0] >= _NOT_DARK_CODE))
    if blank > MAX_BLANK_SHARE:
        return f"{blank:.1%} of its pixels are blank, as after NaN"
    saturated = [_saturated_share(planes) for planes in (before, after)]
    if saturated[1] - saturated[0] > MAX_SATURATED_GROWTH:
        return f"{saturated[1]:.0%} of it is saturated, {saturated[0]:.0%} of the input"
    shifts = [cv2.mean(now)[0] - cv2.mean(then)[0] for then, now in zip(before, after, strict=True)]
    shift, name = max(zip(shifts, names, strict=True), key=lambda item: abs(item[0]))
    if abs(shift) > MAX_MEAN_SHIFT_CODES:
        return f"mean {name} moved by {shift:+.0f} codes"
    return ""


def _sample(image: Image) -> list[Pixels]:
    """Return every fifth row and column of blue, green and red, or of luma, U and V."""
    planes = (image.luma, *image.chroma) if isinstance(image, Yuv420) else np.moveaxis(image, 2, 0)
    return [np.ascontiguousarray(plane[::_STEP, ::_STEP]) for plane in planes]


def _saturated_share(planes: list[Pixels]) -> float:
    """Return the share of samples that are 0 or 255."""
    codes = np.concatenate([plane.ravel() for plane in planes])
    return np.count_nonzero((codes == 0) | (codes == 255)) / codes.size


def _any_bits(colours: list[Pixels]) -> NDArray[np.uint8]:
    """Return the bitwise OR of a pixel's three colours.

    It is 0 only for black, and at least the largest colour. Comparing it with a power of two gives the same result as
    comparing the largest colour, and is much faster.
    """
    bits: NDArray[np.uint8] = colours[0] | colours[1] | colours[2]
    return bits
