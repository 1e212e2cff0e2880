"""Linear conversion between patches of BGR pixels and their values in 4:2:0: BT.709 (ITU-R BT.709-6, items 3.2, 3.3).

The P^2 pixels of a patch have 3 P^2 values in BGR, by row, column, colour, from 0 to 1. In 4:2:0 they have 3 P^2 / 2:
luma from 0 to 1 by row and column, then one U and one V value from -0.5 to 0.5 for each square of 2x2 pixels, by row,
column, U, V. Black is zero in both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_KR, _KB = 0.2126, 0.0722
_KG = 1 - _KR - _KB
"""Weights of red, blue and green in luma."""


def bgr_from_yuv420(patch_px: int) -> Matrix:
    """Return the matrix that repeats the chroma of a square for its pixels: float64[3 P^2, 3 P^2 / 2]; P is even."""
    blue, red = 2 * (1 - _KB), 2 * (1 - _KR)
    chroma = np.array([[blue, 0], [-blue * _KB / _KG, -red * _KR / _KG], [0, red]])  # [B G R, U V]
    matrix = np.zeros((3 * patch_px**2, 3 * patch_px**2 // 2))
    for pixel, square in enumerate(_list_squares(patch_px)):
        matrix[3 * pixel : 3 * pixel + 3, pixel] = 1
        matrix[3 * pixel : 3 * pixel + 3, square : square + 2] = chroma
    return matrix


def yuv420_from_bgr(patch_px: int) -> Matrix:
    """Return the matrix that averages the chroma of a square: float64[3 P^2 / 2, 3 P^2]; P is even."""
    luma = np.array([_KB, _KG, _KR])
    chroma = np.stack([(np.eye(3)[0] - luma) / (2 * (1 - _KB)), (np.eye(3)[2] - luma) / (2 * (1 - _KR))])
    matrix = np.zeros((3 * patch_px**2 // 2, 3 * patch_px**2))
    for pixel, square in enumerate(_list_squares(patch_px)):
        matrix[pixel, 3 * pixel : 3 * pixel + 3] = luma
        matrix[square : square + 2, 3 * pixel : 3 * pixel + 3] = chroma / 4
    return matrix


def _list_squares(patch_px: int) -> list[int]:
    """Return for each pixel of a patch the channel of the U value of its square of 2x2 pixels; V follows."""
    half = patch_px // 2
    pixels = [(row, column) for row in range(patch_px) for column in range(patch_px)]
    return [patch_px**2 + 2 * (row // 2 * half + column // 2) for row, column in pixels]
