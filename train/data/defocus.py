"""Synthetic defocus: a photograph that is out of focus in part or as a whole."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_SUBPIXELS = 8
"""Rows and columns of points in a pixel at which the area of a disc is sampled."""
_WHOLE_SHARE = 0.3
"""Share of the photographs that are out of focus as a whole."""

Light = NDArray[np.float32]
"""Linear light or fractions of codes, [H, W, 3] in [0, 1]."""


def defocus(light: Light, *, radius_px: float, rng: np.random.Generator) -> Light:
    """Return a photograph in which each point of a random part is a disc of `radius_px`, as behind a round aperture.

    The part is everything, or one side of a random line. Its edge is as soft as the discs are large.
    """
    blurred = cv2.filter2D(light, -1, make_disc(radius_px), borderType=cv2.BORDER_REFLECT_101)
    if rng.random() < _WHOLE_SHARE:
        return np.asarray(blurred, np.float32)
    height, width = light.shape[:2]
    heading = rng.uniform(0, 2 * np.pi)
    rows, columns = np.ogrid[:height, :width]
    distance_px: Any = np.cos(heading) * (columns - rng.uniform(0, width)) + np.sin(heading) * (
        rows - rng.uniform(0, height)
    )
    share = np.clip(0.5 + distance_px / (2 * radius_px), 0, 1).astype(np.float32)[..., np.newaxis]
    result: Light = share * blurred + (1 - share) * light
    return result


def make_disc(radius_px: float) -> NDArray[np.float32]:
    """Return a filter that spreads a point over a disc, float32[2R + 1, 2R + 1], whose sum is 1."""
    half = int(np.ceil(radius_px))
    count = (2 * half + 1) * _SUBPIXELS
    offsets_px = (np.arange(count) + 0.5) / _SUBPIXELS - count / (2 * _SUBPIXELS)
    inside = offsets_px[:, np.newaxis] ** 2 + offsets_px**2 <= radius_px**2
    area = inside.reshape(2 * half + 1, _SUBPIXELS, 2 * half + 1, _SUBPIXELS).mean(axis=(1, 3))
    disc: NDArray[np.float32] = (area / area.sum()).astype(np.float32)
    return disc
