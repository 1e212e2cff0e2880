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
_SIGMA = 1.5
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2


def psnr_db(image: Pixels, reference: Pixels) -> float:
    """Return the PSNR in dB of two uint8[H, W, 3] images over all channels; inf if they are equal."""
    error = np.mean(np.square(image.astype(np.float64) - reference))
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def ssim(image: Pixels, reference: Pixels) -> float:
    """Return the structural similarity of two uint8[H, W, 3] images of at least 11x11 pixels; 1 if they are equal.

    Wang, Bovik, Sheikh and Simoncelli 2004: 11x11 Gaussian window with sigma 1.5, K1 0.01,
    K2 0.03, population variances; the mean over the channels and over the pixels whose window
    lies inside the image.
    """
    if min(image.shape[:2]) < SSIM_MIN_PX:
        raise ValueError(f"SSIM needs at least 11x11 pixels, got {image.shape[1]}x{image.shape[0]}")
    x, y = image.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variance_x = _local_mean(x * x) - mean_x**2
    variance_y = _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variance_x + variance_y + _C2)
    edge = SSIM_MIN_PX // 2
    return float(np.mean((luminance * structure)[edge:-edge, edge:-edge]))


def _local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(cv2.GaussianBlur(values, _WINDOW, _SIGMA), np.float64)
