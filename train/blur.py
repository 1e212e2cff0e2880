"""Seeded synthetic motion blur: a moving camera, averaged in linear light.

A real exposure adds up light, not sRGB codes, and the camera moves while the shutter is open.
So a photograph is brought to linear light, moved along a smooth random path (translation and
roll), averaged over the exposure, and brought back; noise and JPEG follow, as in a camera.
The photograph itself is the sharp truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Linear = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class BlurConfig:
    """Ranges that each exposure is drawn from, uniformly."""

    length_px: tuple[float, float] = (0.0, 16.0)
    """Length of the camera's path over one exposure."""
    roll_deg: float = 1.5
    """Largest rotation about the optical axis over one exposure, either way."""
    noise_sigma: float = 1.5
    """Largest standard deviation of the Gaussian noise, in 8-bit codes."""
    jpeg_share: float = 0.3
    """Share of blurred images that are JPEG-compressed ..."""
    jpeg_quality: tuple[int, int] = (70, 97)
    """... at a quality from this range."""

    def __post_init__(self) -> None:
        if not 0 <= self.length_px[0] <= self.length_px[1]:
            raise ValueError(f"length_px must be (low, high) with 0 <= low <= high, got {self.length_px}")
        if not 0 <= self.jpeg_share <= 1:
            raise ValueError(f"jpeg_share must be from 0 to 1, got {self.jpeg_share}")

    @property
    def margin_px(self) -> int:
        """How much of the photograph must lie around a crop for any path to stay inside it."""
        return int(self.length_px[1]) + 4


def linear_from_srgb(image: Image) -> Linear:
    """uint8 sRGB codes -> float32 linear light in [0, 1], any shape (IEC 61966-2-1)."""
    return _LINEAR_OF_CODE[image]


def srgb_from_linear(light: Linear) -> NDArray[np.float32]:
    """Linear light (clipped to [0, 1]) -> float32 sRGB codes in [0, 255] (IEC 61966-2-1)."""
    light = np.clip(light, 0.0, 1.0)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255.0 * srgb).astype(np.float32)


def camera_path(rng: np.random.Generator, *, length_px: float, roll_deg: float) -> NDArray[np.float64]:
    """A smooth random path over one exposure: float64[T, 3] of x, y in pixels and roll in degrees.

    Constant velocity, acceleration and hand tremor (about 1 to 3 swings an exposure) in random
    proportions, drawn to `length_px`. T is large enough that neighbours lie at most a pixel
    apart. The mean of the path is zero: the truth is the view at the centre of the blur, since
    where on its way the camera was at mid-exposure cannot be seen in the picture.
    """
    count = max(9, 2 * int(np.ceil(length_px / 2)) + 1)
    t = np.linspace(-0.5, 0.5, count)
    path = np.zeros((count, 2))
    heading = rng.uniform(0, 2 * np.pi)
    path += np.outer(t, (np.cos(heading), np.sin(heading)))
    path += np.outer(t**2, rng.normal(0, 0.2, 2))
    frequency, phase = rng.uniform(1, 3, 2), rng.uniform(0, 2 * np.pi, 2)
    path += rng.normal(0, 0.04, 2) * np.sin(2 * np.pi * np.outer(t, frequency) + phase)
    path -= path.mean(axis=0)
    drawn = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    path *= length_px / drawn
    return np.column_stack((path, roll_deg * t))


def expose(light: Linear, path: NDArray[np.float64], *, size: int) -> Linear:
    """Average the central `size` x `size` pixels of `light` over a camera path.

    `light`: float32[H, W, 3] linear, with a margin around the centre for the path to move in.
    """
    height, width = light.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    total = np.zeros((size, size, 3), np.float32)
    for x, y, roll in path:
        view = cv2.getRotationMatrix2D(centre, roll, 1.0)
        view[:, 2] += (x - (width - size) // 2, y - (height - size) // 2)
        total += cv2.warpAffine(light, view, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return total / len(path)


def blurred_pair(around: Image, *, config: BlurConfig, rng: np.random.Generator) -> tuple[Image, Image]:
    """Blur the centre of a square patch of a photograph.

    `around`: uint8[S + 2M, S + 2M, 3] with M = `config.margin_px`. Returns the blurred and the
    sharp uint8[S, S, 3], channels in the order given.
    """
    margin = config.margin_px
    size = around.shape[0] - 2 * margin
    if around.shape[:2] != (size + 2 * margin,) * 2 or size < 1:
        raise ValueError(f"expected a square patch wider than {2 * margin} pixels, got {around.shape[:2]}")
    length_px = rng.uniform(*config.length_px)
    roll_deg = rng.uniform(-config.roll_deg, config.roll_deg)
    path = camera_path(rng, length_px=length_px, roll_deg=roll_deg)
    codes = srgb_from_linear(expose(linear_from_srgb(around), path, size=size))
    codes += rng.normal(0, rng.uniform(0, config.noise_sigma), codes.shape).astype(np.float32)
    blurred = np.clip(np.rint(codes), 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg_share:
        quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
        _, packed = cv2.imencode(".jpg", blurred, [cv2.IMWRITE_JPEG_QUALITY, quality])
        blurred = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return blurred, np.ascontiguousarray(around[margin:-margin, margin:-margin])


def _linear_of_code() -> NDArray[np.float32]:
    code = np.arange(256) / 255.0
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR_OF_CODE = _linear_of_code()
