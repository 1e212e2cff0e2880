"""NIQE against published values and by its parts."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from calib_data import CALIBRATION
from tests.train.conftest import scene
from train.niqe import MODEL, _fit, _halve, _read_model, niqe

HELD_OUT = CALIBRATION.parent / "held_out" / "blur"


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@pytest.mark.parametrize(("name", "expected"), [("camera_0", 3.35520), ("camera_1", 8.36066), ("chelsea_0", 4.78244)])
def test_values_are_those_of_another_implementation(name: str, expected: float) -> None:
    """`expected`: by calculate_niqe of BasicSR, whose value for its test image is that of the authors' program."""
    assert niqe(cv2.imread(str(HELD_OUT / f"{name}.jpg"))) == pytest.approx(expected, abs=2e-3)


def test_more_blur_is_worse_than_little() -> None:
    image = cv2.imread(str(HELD_OUT / "camera_0.jpg"))
    scores = [niqe(cv2.GaussianBlur(image, (0, 0), sigma)) for sigma in (1, 2, 4)]
    assert scores == sorted(scores)
    assert scores[2] > 1.5 * scores[0]


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 5.0])
def test_the_fit_finds_the_parameters_of_samples(shape: float) -> None:
    rng = np.random.default_rng(1)
    size = rng.gamma(1 / shape, size=400_000) ** (1 / shape)  # of a generalised Gaussian of scale 1
    is_left = rng.random(size.size) < 2 / 3  # the side of scale 2 has twice the mass of that of scale 1
    samples = np.where(is_left, -2 * size, size).reshape(1, 500, 800)
    found, mean, left, right = (part.item() for part in _fit(samples))
    assert found == pytest.approx(shape, rel=0.02)
    assert (left, right) == (pytest.approx(2, rel=0.03), pytest.approx(1, rel=0.03))
    assert mean == pytest.approx(-math.gamma(2 / shape) / math.gamma(1 / shape), rel=0.05)


def test_an_image_is_halved_as_by_a_stretched_bicubic_kernel() -> None:
    image = noise(16, 20)

    def cubic(x: float) -> float:
        x = abs(x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    def matrix(size: int) -> np.ndarray:
        weights = np.zeros((size // 2, size))
        for row in range(size // 2):
            for source in range(2 * row - 8, 2 * row + 9):
                mirrored = source if 0 <= source < size else -1 - source if source < 0 else 2 * size - 1 - source
                weights[row, mirrored] += cubic((source - 2 * row - 0.5) / 2) / 2
        return weights

    np.testing.assert_allclose(_halve(image), matrix(16) @ image @ matrix(20).T, atol=1e-12)


def test_images_that_are_too_small_or_flat_have_no_score() -> None:
    assert niqe(scene(191, 190, seed=0)) is None
    assert niqe(np.full((300, 300, 3), 9, np.uint8)) is None
    half_flat = scene(400, 200, seed=0)
    half_flat[:, :200] = 9
    assert niqe(half_flat) is not None


def test_the_model_is_whole_and_has_its_notice() -> None:
    mean, covariance = _read_model()
    assert (mean.shape, covariance.shape) == ((36,), (36, 36))
    assert np.array_equal(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > 0
    assert "Copyright (c) 2011 The University of Texas at Austin" in MODEL.read_text()
