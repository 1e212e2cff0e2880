"""PSNR and SSIM of 8-bit images against a reference, and the strength of a grid in an image."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.frame import Pixels

IDENTICAL_DB = 99.0
"""PSNR reported for equal images instead of infinity, which means and JSON files cannot hold."""
SSIM_MIN_PX = 11
_WINDOW = (SSIM_MIN_PX, SSIM_MIN_PX)
_EDGE = SSIM_MIN_PX // 2
GRID_MIN_PX = 64
"""Smallest height and width of an image in which a grid is looked for."""
_GRID_PX = 4
_PEAK = np.array([-1, 0, 1])
"""Bins of a spectrum that a line occupies behind a Hann window, from its middle."""
_BESIDE = np.array([*range(-8, -2), *range(3, 9)])
"""Bins beside a line."""
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


def grid_codes(image: Pixels) -> float:
    """Return the strength of what repeats every 4 pixels in an image uint8[H, W, 3]: its RMS in 8-bit codes.

    Networks that work on patches can lay a grid over an image; half a code begins to be visible on smooth surfaces. It
    is the energy of the grey image's spectrum (behind a Hann window) at the 15 frequencies of such a grid, less the
    larger of the means beside each of them, in its row and in its column. 0 if there is none. Raises ValueError for an
    image of fewer than `GRID_MIN_PX` pixels a side.
    """
    if min(image.shape[:2]) < GRID_MIN_PX:
        raise ValueError(f"a grid needs at least {GRID_MIN_PX} pixels a side, got {image.shape[1]}x{image.shape[0]}")
    height, width = (side - side % _GRID_PX for side in image.shape[:2])
    grey = cv2.cvtColor(image[:height, :width], cv2.COLOR_BGR2GRAY).astype(np.float32)
    window = np.outer(*(np.hanning(side + 1)[:side] for side in (height, width))).astype(np.float32)
    spectrum = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    lines = [
        (row * height // _GRID_PX, column * width // _GRID_PX)
        for row, column in np.ndindex(_GRID_PX, _GRID_PX)
        if row or column
    ]
    energy = math.fsum(_line_energy(spectrum, *line) for line in lines)
    return math.sqrt(max(0.0, energy) / float(np.mean(np.square(window)))) / float(height * width)


def _line_energy(spectrum: NDArray[np.float32], row: int, column: int) -> float:
    """Return the energy of a spectral line at a bin, less what lies beside it."""

    def mean(down: NDArray[np.int_], right: NDArray[np.int_]) -> float:
        return float(np.mean(spectrum[np.ix_((row + down) % len(spectrum), (column + right) % spectrum.shape[1])]))

    beside = max(mean(_BESIDE, _PEAK), mean(_PEAK, _BESIDE))
    bins = len(_PEAK) ** 2
    return bins * (mean(_PEAK, _PEAK) - beside)


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
