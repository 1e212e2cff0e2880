"""PSNR and SSIM of 8-bit images against a reference."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.frame import Pixels

IDENTICAL_DB = 99.0
"""PSNR reported for equal images instead of infinity, which means and JSON files cannot hold."""
SSIM_MIN_PX = 11
_WINDOW = (SSIM_MIN_PX, SSIM_MIN_PX)
_EDGE = SSIM_MIN_PX // 2
_BAND_ROWS = 256
_SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def psnr_db(image: Pixels, reference: Pixels) -> float:
    """Return the PSNR in dB of two uint8[H, W, 3] images over all channels; inf if they are equal."""
    bands = _bands(len(image))
    error = (
        sum(float(np.sum(np.square(image[rows].astype(np.float64) - reference[rows]))) for rows in bands) / image.size
    )
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(image: Pixels, reference: Pixels) -> float:
    """Return the structural similarity of two uint8[H, W, 3] images of at least 11x11 pixels; 1 if they are equal.

    Wang, Bovik, Sheikh and Simoncelli 2004: 11x11 Gaussian window with sigma 1.5, K1 0.01,
    K2 0.03, population variances; the mean over the channels and over the pixels whose window
    lies inside the image.
    """
    height, width, channels = image.shape
    if min(height, width) < SSIM_MIN_PX:
        raise ValueError(f"SSIM needs at least 11x11 pixels, got {width}x{height}")
    total = sum(float(np.sum(_ssim_map(image[rows], reference[rows]))) for rows in _bands(height, overlap=2 * _EDGE))
    return total / float((height - 2 * _EDGE) * (width - 2 * _EDGE) * channels)


def _ssim_map(image: Pixels, reference: Pixels) -> NDArray[np.float64]:
    """Return the SSIM of each channel and each pixel whose window lies inside the image."""
    x, y = image.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variance_x = _local_mean(x * x) - mean_x**2
    variance_y = _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    return (luminance * structure)[_EDGE:-_EDGE, _EDGE:-_EDGE]


def _bands(height: int, *, overlap: int = 0) -> list[slice]:
    """Return the rows of an image in bands, each with `overlap` rows of the next one: float64 needs much memory."""
    return [
        slice(top, min(top + _BAND_ROWS + overlap, height)) for top in range(0, max(1, height - overlap), _BAND_ROWS)
    ]


def _local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.GaussianBlur(values, _WINDOW, _SIGMA), np.float64)
