"""Seeded synthetic motion blur: a moving camera and moving things, averaged in linear light.

A real exposure adds up light, not sRGB codes, and the camera moves while the shutter is open.
So a photograph is brought to linear light, moved along a smooth random path (translation and
roll), averaged over the exposure, and brought back; noise and JPEG follow, as in a camera.
Sometimes a piece of the photograph is pasted in as a thing that moves on its own, covering and
uncovering what lies behind. The unmoved picture is the sharp truth.

GOPRO_Large's `blur` was not made of light: its frames were averaged as the codes that they are
(docs/experiments.md). For a network that is to be measured on such pairs, a share of the exposures
can be made so too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from train.fields import check_types

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
    object_share: float = 0.3
    """Share of pictures in which a thing moves on its own, as far again as the camera may."""
    object_px: tuple[float, float] = (12.0, 60.0)
    """Half the width and half the height of such a thing."""
    codes_share: float = 0.0
    """Share of exposures that average 8-bit codes instead of light, as GOPRO_Large's `blur` does."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.length_px[0] <= self.length_px[1]:
            raise ValueError(f"length_px must be (low, high) with 0 <= low <= high, got {self.length_px}")
        for name in ("jpeg_share", "object_share", "codes_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.object_px[0] <= self.object_px[1]:
            raise ValueError(f"object_px must be (low, high) with 0 < low <= high, got {self.object_px}")

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


def motion_path(rng: np.random.Generator, *, length_px: float, moments: int) -> NDArray[np.float64]:
    """A smooth random path over one exposure: float64[moments, 2] of x and y in pixels.

    Constant velocity, acceleration and hand tremor (about 1 to 3 swings an exposure) in random
    proportions, drawn to `length_px`. The mean of the path is zero: the truth is the view at the
    centre of the blur, since where on its way the camera was at mid-exposure cannot be seen in
    the picture.
    """
    t = np.linspace(-0.5, 0.5, moments)
    path = np.zeros((moments, 2))
    heading = rng.uniform(0, 2 * np.pi)
    path += np.outer(t, (np.cos(heading), np.sin(heading)))
    path += np.outer(t**2, rng.normal(0, 0.2, 2))
    frequency, phase = rng.uniform(1, 3, 2), rng.uniform(0, 2 * np.pi, 2)
    path += rng.normal(0, 0.04, 2) * np.sin(2 * np.pi * np.outer(t, frequency) + phase)
    path -= path.mean(axis=0)
    drawn: float = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    return path * (length_px / drawn)


def expose(
    light: Linear,
    path: NDArray[np.float64],
    *,
    roll_deg: float,
    size: tuple[int, int],
    thing: Linear | None = None,
    thing_path: NDArray[np.float64] | None = None,
) -> Linear:
    """Average the central `size` (width, height) of `light` over a path and a roll of the camera.

    `light`: float32[H, W, 3] linear, with a margin around the centre for the path to move in.
    `thing`: float32[H, W, 4], linear light times cover, and cover, in the place that it has at
    the centre of `thing_path`; it is moved by both paths.
    """
    total = np.zeros((size[1], size[0], 3), np.float32)
    for moment, (x, y) in enumerate(path):
        roll = roll_deg * (moment / (len(path) - 1) - 0.5)
        view = _view(light, x, y, roll, size)
        if thing is not None and thing_path is not None:
            pasted = _view(thing, x + thing_path[moment, 0], y + thing_path[moment, 1], roll, size)
            view = pasted[..., :3] + (1 - pasted[..., 3:]) * view
        total += view
    return total / len(path)


def blurred_pair(around: Image, *, config: BlurConfig, rng: np.random.Generator) -> tuple[Image, Image]:
    """Blur the centre of a picture.

    `around`: uint8[H + 2M, W + 2M, 3] with M = `config.margin_px`. Returns the blurred and the
    sharp uint8[H, W, 3], channels in the order given.
    """
    margin = config.margin_px
    height, width = around.shape[0] - 2 * margin, around.shape[1] - 2 * margin
    if min(height, width) < 1:
        raise ValueError(f"expected a picture wider and higher than {2 * margin} pixels, got {around.shape[:2]}")
    moves = rng.random() < config.object_share
    lengths_px = rng.uniform(*config.length_px, 2)
    roll_deg = rng.uniform(-config.roll_deg, config.roll_deg)
    # Neighbouring moments lie at most about a pixel apart.
    furthest_px = lengths_px.sum() if moves else lengths_px[0]
    moments = max(9, 2 * int(np.ceil(furthest_px / 2)) + 1)
    path, thing_path = (motion_path(rng, length_px=length_px, moments=moments) for length_px in lengths_px)
    of_codes = config.codes_share > 0 and rng.random() < config.codes_share
    light, thing = (around.astype(np.float32) / 255 if of_codes else linear_from_srgb(around)), None
    codes_from = _codes_from_fractions if of_codes else srgb_from_linear
    sharp = around[margin:-margin, margin:-margin]
    if moves:
        thing = _thing(light, rng.uniform(*config.object_px, 2), rng)
        still = thing[margin:-margin, margin:-margin]
        truth = still[..., :3] + (1 - still[..., 3:]) * light[margin:-margin, margin:-margin]
        sharp = np.rint(codes_from(truth)).astype(np.uint8)
    exposure = expose(light, path, roll_deg=roll_deg, size=(width, height), thing=thing, thing_path=thing_path)
    codes = codes_from(exposure)
    codes += rng.normal(0, rng.uniform(0, config.noise_sigma), codes.shape).astype(np.float32)
    blurred = np.clip(np.rint(codes), 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg_share:
        quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
        _, packed = cv2.imencode(".jpg", blurred, [cv2.IMWRITE_JPEG_QUALITY, quality])
        blurred = cv2.imdecode(packed, cv2.IMREAD_COLOR)
    return blurred, np.ascontiguousarray(sharp)


def _view(light: Linear, x: float, y: float, roll_deg: float, size: tuple[int, int]) -> Linear:
    """The central `size` (width, height), moved and turned; a thing (4 channels) ends where it ends."""
    height, width = light.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), roll_deg, 1.0)
    turn[:, 2] += (x - (width - size[0]) // 2, y - (height - size[1]) // 2)
    whole = light.shape[2] == 3
    flags, border = (cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101) if whole else (cv2.INTER_LINEAR, cv2.BORDER_CONSTANT)
    return cv2.warpAffine(light, turn, size, flags=flags, borderMode=border)


def _thing(light: Linear, half_px: NDArray[np.float64], rng: np.random.Generator) -> Linear:
    """A turned box or ellipse of the mirrored picture somewhere in it: float32[H, W, 4], premultiplied."""
    height, width = light.shape[:2]
    # OpenCV anti-aliases 8-bit drawings only.
    cover = np.zeros((height, width), np.uint8)
    centre = (rng.uniform(0, width), rng.uniform(0, height))
    box = (centre, (2 * half_px[0], 2 * half_px[1]), rng.uniform(0, 180))
    if rng.random() < 0.5:
        cv2.ellipse(cover, box, 255, -1, cv2.LINE_AA)
    else:
        cv2.fillPoly(cover, [np.rint(cv2.boxPoints(box)).astype(np.int32)], 255, cv2.LINE_AA)
    alpha = cover[..., np.newaxis].astype(np.float32) / 255
    return np.concatenate((light[:, ::-1] * alpha, alpha), axis=2)


def _codes_from_fractions(fractions: Linear) -> NDArray[np.float32]:
    return 255.0 * np.clip(fractions, 0.0, 1.0)


def _linear_of_code() -> NDArray[np.float32]:
    code = np.arange(256) / 255.0
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR_OF_CODE = _linear_of_code()
