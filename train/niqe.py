"""NIQE, the distance of an image's statistics to those of undistorted photographs (Mittal et al. 2013).

"Making a Completely Blind Image Quality Analyzer", IEEE Signal Processing Letters 20(3). The model of undistorted
photographs in `niqe_model.json` is that of the authors' release; its notice is in the file.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.blur import Image

Array = NDArray[np.float64]
MODEL = Path(__file__).with_name("niqe_model.json")
BLOCK_PX = 96
"""Side of the squares whose statistics are compared."""
_LUMA_BGR = np.array((24.966, 128.553, 65.481)) / 255
"""Luma of ITU-R BT.601, 16 to 235, of 8-bit codes."""
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_HALVING = np.array((-0.01171875, -0.03515625, 0.11328125, 0.43359375))
"""Left half of the bicubic kernel (a = -0.5) stretched by two, with which MATLAB's `imresize` halves an image."""


def niqe(image: Image) -> float | None:
    """Return the NIQE of an image uint8[H, W, 3] BGR: about 2 to 5 for undistorted photographs; less is better.

    None if the image has fewer than two squares of 96 pixels that are not flat.
    """
    rows, columns = (side // BLOCK_PX for side in image.shape[:2])
    if rows * columns < 2:
        return None
    luma = np.rint(image[: rows * BLOCK_PX, : columns * BLOCK_PX].astype(np.float64) @ _LUMA_BGR + 16)
    features = np.concatenate(
        [_compute_features(luma, BLOCK_PX), _compute_features(_halve(luma), BLOCK_PX // 2)], axis=1
    )
    whole = features[np.isfinite(features).all(axis=1)]
    if len(whole) < 2:
        return None
    mean, covariance = _read_model()
    difference = mean - np.nanmean(np.where(np.isfinite(features), features, np.nan), axis=0)
    inverse = np.linalg.pinv((covariance + np.cov(whole, rowvar=False)) / 2)
    return math.sqrt(max(0.0, float(difference @ inverse @ difference)))


@cache
def _read_model() -> tuple[Array, Array]:
    """Return the mean float64[36] and the covariance float64[36, 36] of the features of undistorted photographs."""
    model = json.loads(MODEL.read_text())
    covariance = np.zeros((36, 36))
    covariance[np.tril_indices(36)] = model["lower_covariance"]
    return np.array(model["mean"]), covariance + np.tril(covariance, -1).T


def _halve(luma: Array) -> Array:
    """Return half of the size, with the border mirrored."""
    kernel = np.concatenate((_HALVING, _HALVING[::-1]))
    for _ in range(2):
        padded = np.pad(luma, ((3, 3), (0, 0)), mode="symmetric")
        rows = [padded[tap : len(padded) - 7 + tap : 2] for tap in range(8)]
        luma = np.tensordot(kernel, np.stack(rows), axes=1).T
    return luma


def _compute_features(luma: Array, block_px: int) -> Array:
    """Return the 18 features of each square, float64[squares, 18]."""
    window = (7, 7)
    mean = cv2.GaussianBlur(luma, window, 7 / 6, borderType=cv2.BORDER_REPLICATE)
    square = cv2.GaussianBlur(luma**2, window, 7 / 6, borderType=cv2.BORDER_REPLICATE)
    normal = (luma - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
    rows, columns = (side // block_px for side in normal.shape)
    blocks = normal.reshape(rows, block_px, columns, block_px).swapaxes(1, 2).reshape(-1, block_px, block_px)
    shape, _, left, right = _fit(blocks)
    features = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        features += _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
    return np.stack(features, axis=1)


_SHAPES = np.arange(200, 10_001) / 1000


def _gamma(factor: int) -> Array:
    return np.array([math.gamma(factor / shape) for shape in _SHAPES])


@cache
def _gamma_ratio(numerator: int, denominator: int) -> Array:
    """Return gamma(numerator / shape) / gamma(denominator / shape) for each of `_SHAPES`."""
    return _gamma(numerator) / _gamma(denominator)


@cache
def _moment_ratios() -> Array:
    """Return gamma(2 / shape)^2 / (gamma(1 / shape) gamma(3 / shape)) for each of `_SHAPES`; it rises."""
    return _gamma_ratio(2, 1) * _gamma_ratio(2, 3)


def _fit(blocks: Array) -> list[Array]:
    """Fit an asymmetric generalised Gaussian to each square: return shape, mean, left and right scale.

    By moments (equations 5 to 8 of the paper; Lasmar et al. 2009). NaN where a square has no values on one side of 0.
    """
    values = blocks.reshape(len(blocks), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left, right = (np.sqrt((values**2 * side).sum(axis=1) / side.sum(axis=1)) for side in (values < 0, values > 0))
        gamma = left / right
        ratio = np.abs(values).mean(axis=1) ** 2 / (values**2).mean(axis=1)
        ratio *= (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1) ** 2
    known = np.isfinite(ratio)
    table = _moment_ratios()
    above = np.searchsorted(table, np.where(known, ratio, 0.0)).clip(1, len(table) - 1)
    nearest = np.where(ratio - table[above - 1] <= table[above] - ratio, above - 1, above)
    scale = np.sqrt(_gamma_ratio(1, 3)[nearest])
    left, right = left * scale, right * scale
    parts = (_SHAPES[nearest], (right - left) * _gamma_ratio(2, 1)[nearest], left, right)
    return [np.where(known, part, np.nan) for part in parts]
