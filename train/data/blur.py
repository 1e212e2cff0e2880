"""Seeded synthetic motion blur: a moving camera and moving objects, averaged in linear light.

A real exposure adds up light, not sRGB codes, and the camera moves while the shutter is open. Therefore a photograph
is converted to linear light, moved along a smooth random path (translation and roll), averaged over the exposure, and
converted back; noise and JPEG compression follow, as in a camera. In some exposures a piece of the photograph is
pasted in as an object with a motion of its own, which covers and uncovers the background. The unmoved image is the
sharp ground truth.

The frames of GOPRO_Large's `blur` are averages of few frames, as 8-bit codes and not as light (docs/experiments.md).
For a network that is measured on such pairs, a share of the exposures can be made in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.defocus import defocus
from train.fields import check_types

Image = NDArray[np.uint8]
"""8-bit sRGB codes, [H, W, 3]."""
Linear = NDArray[np.float32]
"""Linear light in [0, 1]."""
_AVERAGED_FRAMES = (7, 9, 11, 13, 15, 17, 21)
"""Numbers of frames in an average of codes: GOPRO_Large has 7 to 13 (Nah et al. 2017, section 3), others more."""


@dataclass(frozen=True, kw_only=True)
class BlurConfig:
    """Ranges that the properties of each exposure are drawn from, uniformly."""

    length_px: tuple[float, float] = (0.0, 16.0)
    """Length of the camera's path over one exposure, in pixels."""
    length_exponent: float = 1.0
    """Exponent of the uniform number from 0 to 1 that chooses a length in its range: above 1, short paths are more
    frequent than long ones."""
    curriculum_epochs: int = 0
    """Number of epochs in which the longest path grows to the end of its range, so that short blur is learned first
    (Bengio et al. 2009); 0: all lengths from the first epoch on. Validation always has all lengths."""
    roll_deg: float = 1.5
    """Largest rotation about the optical axis over one exposure, in either direction."""
    noise_sigma: float = 1.5
    """Largest standard deviation of the Gaussian noise, in 8-bit codes."""
    jpeg_share: float = 0.3
    """Share of the blurred images that are JPEG-compressed, from 0 to 1."""
    jpeg_quality: tuple[int, int] = (70, 97)
    """Quality of that compression, from 0 to 100."""
    object_share: float = 0.3
    """Share of the images with an object that moves by a path of its own, as long as the camera's may be."""
    object_px: tuple[float, float] = (12.0, 60.0)
    """Half the width and half the height of such an object, in pixels."""
    codes_share: float = 0.0
    """Share of the exposures that average the 8-bit codes of 7 to 21 frames instead of light, as GOPRO_Large's `blur`
    does."""
    still_share: float = 0.0
    """Share of the images without motion, noise and compression: a network learns to return sharp images unchanged."""
    defocus_share: float = 0.0
    """Share of the photographs that are out of focus, in part or as a whole, and stay so in the ground truth."""
    defocus_px: tuple[float, float] = (1.0, 8.0)
    """Radius of the disc that a point becomes where a photograph is out of focus, in pixels."""

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 <= self.length_px[0] <= self.length_px[1]:
            raise ValueError(f"length_px must be (low, high) with 0 <= low <= high, got {self.length_px}")
        for name in ("jpeg_share", "object_share", "codes_share", "still_share", "defocus_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        for name in ("roll_deg", "noise_sigma", "curriculum_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise ValueError(f"jpeg_quality must be (low, high) with 0 <= low <= high <= 100, got {self.jpeg_quality}")
        for name in ("object_px", "defocus_px"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, got {(low, high)}")
        if self.length_exponent <= 0:
            raise ValueError(f"length_exponent must be above 0, got {self.length_exponent}")

    @property
    def margin_px(self) -> int:
        """Width of the border of the photograph that a crop needs around it, so that every path stays inside."""
        return int(self.length_px[1]) + 4

    def length_share(self, epoch: int) -> float:
        """Return the share of the range of lengths that is used in an epoch, counted from 0."""
        return min(1.0, (epoch + 1) / self.curriculum_epochs) if self.curriculum_epochs else 1.0


def linear_from_srgb(image: Image) -> Linear:
    """Convert uint8 sRGB codes of any shape to float32 linear light in [0, 1] (IEC 61966-2-1)."""
    return _LINEAR_OF_CODE[image]


def srgb_from_linear(light: Linear) -> NDArray[np.float32]:
    """Convert linear light of any shape, clipped to [0, 1], to float32 sRGB codes in [0, 255] (IEC 61966-2-1)."""
    light = np.clip(light, 0.0, 1.0)
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255.0 * srgb).astype(np.float32)


def draw_motion_path(rng: np.random.Generator, *, length_px: float, moments: int) -> NDArray[np.float64]:
    """Return a smooth random path over one exposure, float64[moments, 2]: x and y in pixels at evenly spaced moments.

    Constant velocity, acceleration, and a tremor of less than two oscillations are added in random proportions, and
    scaled to `length_px`. They are distributed as in the 240 fps clip of GOPRO_Large, whose paths are nearly straight
    but vary in speed (docs/experiments.md). The path is at (0, 0) at its middle moment, as in data sets with real blur:
    the ground truth is the view at the middle of the exposure. An image shows where that is, because as much of its
    light was gathered before as after. `moments` must be odd.
    """
    t = np.linspace(-0.5, 0.5, moments)
    path = np.zeros((moments, 2))
    heading = rng.uniform(0, 2 * np.pi)
    path += np.outer(t, (np.cos(heading), np.sin(heading)))
    acceleration = 0.2 * np.exp(rng.normal(0, 1.0)) * rng.normal(0, 1, 2)
    path += np.outer(t**2, acceleration)
    oscillations, phase = rng.uniform(0.3, 1.5, 2), rng.uniform(0, 2 * np.pi, 2)
    tremor = 0.015 * np.exp(rng.normal(0, 0.8)) * rng.normal(0, 1, 2)
    path += tremor * np.sin(2 * np.pi * np.outer(t, oscillations) + phase)
    path -= path[moments // 2]
    unscaled_px: float = np.linalg.norm(np.diff(path, axis=0), axis=1).sum()
    scaled: NDArray[np.float64] = path * (length_px / unscaled_px)
    return scaled


def expose(
    light: Linear,
    path: NDArray[np.float64],
    *,
    roll_deg: float,
    size: tuple[int, int],
    moving_object: Linear | None = None,
    object_path: NDArray[np.float64] | None = None,
) -> Linear:
    """Average the central `size` (width, height) of `light` over a path and a roll of the camera.

    `light`: float32[H, W, 3] linear, with a margin around the centre in which the path lies. `moving_object`:
    float32[H, W, 4], linear light times opacity, and opacity, at the position of the object at the middle of
    `object_path`; it moves by the sum of both paths.
    """
    total = np.zeros((size[1], size[0], 3), np.float32)
    for moment, (x, y) in enumerate(path):
        roll = roll_deg * (moment / (len(path) - 1) - 0.5)
        view = _view(light, x, y, roll, size)
        if moving_object is not None and object_path is not None:
            pasted = _view(moving_object, x + object_path[moment, 0], y + object_path[moment, 1], roll, size)
            view = pasted[..., :3] + (1 - pasted[..., 3:]) * view
        total += view
    mean: Linear = (total / len(path)).astype(np.float32, copy=False)
    return mean


def make_blurred_pair(
    image: Image, *, config: BlurConfig, rng: np.random.Generator, length_share: float = 1.0
) -> tuple[Image, Image]:
    """Blur the centre of an image; return the blurred and the sharp uint8[H, W, 3], channels in the same order.

    `image`: uint8[H + 2M, W + 2M, 3] with M = `config.margin_px`. `length_share`: share of the range of lengths, from
    its lower end, that is used. Raises ValueError if the image is smaller.
    """
    margin = config.margin_px
    height, width = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    if min(height, width) < 1:
        raise ValueError(f"expected an image wider and higher than {2 * margin} pixels, got {image.shape[:2]}")
    # The order of the draws from `rng` is part of the result: another order gives other images for the same seed.
    has_object = rng.random() < config.object_share
    low_px, high_px = config.length_px
    lengths_px = low_px + length_share * (high_px - low_px) * rng.random(2) ** config.length_exponent
    roll_deg = rng.uniform(-config.roll_deg, config.roll_deg)
    # The views at neighbouring moments are at most about a pixel apart.
    longest_px = lengths_px.sum() if has_object else lengths_px[0]
    moments = max(9, 2 * int(np.ceil(longest_px / 2)) + 1)
    averages_codes = config.codes_share > 0 and rng.random() < config.codes_share
    if averages_codes:
        moments = int(rng.choice(_AVERAGED_FRAMES))
    path, object_path = (draw_motion_path(rng, length_px=length_px, moments=moments) for length_px in lengths_px)
    light: Linear = image.astype(np.float32) / np.float32(255) if averages_codes else linear_from_srgb(image)
    to_codes = _codes_from_fractions if averages_codes else srgb_from_linear
    sharp, moving_object = image[margin:-margin, margin:-margin], None
    is_still = config.still_share > 0 and rng.random() < config.still_share
    if config.defocus_share > 0 and rng.random() < config.defocus_share:
        light = defocus(light, radius_px=rng.uniform(*config.defocus_px), rng=rng)
        sharp = np.rint(to_codes(light[margin:-margin, margin:-margin])).astype(np.uint8)
    if is_still:
        return sharp.copy(), np.ascontiguousarray(sharp)
    if has_object:
        moving_object = _draw_object(light, rng.uniform(*config.object_px, 2), rng)
        still = moving_object[margin:-margin, margin:-margin]
        pasted = still[..., :3] + (1 - still[..., 3:]) * light[margin:-margin, margin:-margin]
        sharp = np.rint(to_codes(pasted)).astype(np.uint8)
    exposure = expose(
        light, path, roll_deg=roll_deg, size=(width, height), moving_object=moving_object, object_path=object_path
    )
    return _add_sensor_effects(to_codes(exposure), config, rng), np.ascontiguousarray(sharp)


def _add_sensor_effects(codes: NDArray[np.float32], config: BlurConfig, rng: np.random.Generator) -> Image:
    """Return codes with noise, rounded to 8 bits, and compressed if the draw says so."""
    codes += rng.normal(0, rng.uniform(0, config.noise_sigma), codes.shape).astype(np.float32)
    blurred: Image = np.clip(np.rint(codes), 0, 255).astype(np.uint8)
    if rng.random() < config.jpeg_share:
        quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
        _, encoded = cv2.imencode(".jpg", blurred, [cv2.IMWRITE_JPEG_QUALITY, quality])
        blurred = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR), np.uint8)
    return blurred


def _view(light: Linear, x: float, y: float, roll_deg: float, size: tuple[int, int]) -> Linear:
    """Return the central `size` (width, height), moved and rotated.

    Three channels are mirrored at their border; a moving object (four channels) is transparent outside it.
    """
    height, width = light.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), roll_deg, 1.0)
    matrix[:, 2] += (x - (width - size[0]) // 2, y - (height - size[1]) // 2)
    is_object = light.shape[2] == 4
    flags, border = (cv2.INTER_LINEAR, cv2.BORDER_CONSTANT) if is_object else (cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101)
    return np.asarray(cv2.warpAffine(light, matrix, size, flags=flags, borderMode=border), np.float32)


def _draw_object(light: Linear, half_px: NDArray[np.float64], rng: np.random.Generator) -> Linear:
    """Return a rotated box or ellipse at a random place, filled with the mirrored image.

    float32[H, W, 4], colours multiplied by the opacity in the fourth channel.
    """
    height, width = light.shape[:2]
    # OpenCV anti-aliases 8-bit drawings only.
    opacity_codes = np.zeros((height, width), np.uint8)
    centre = (rng.uniform(0, width), rng.uniform(0, height))
    box = (centre, (2 * half_px[0], 2 * half_px[1]), rng.uniform(0, 180))
    if rng.random() < 0.5:
        cv2.ellipse(opacity_codes, box, 255, -1, cv2.LINE_AA)
    else:
        cv2.fillPoly(opacity_codes, [np.rint(cv2.boxPoints(box)).astype(np.int32)], 255, cv2.LINE_AA)
    opacity = opacity_codes[..., np.newaxis].astype(np.float32) / 255
    return np.concatenate((light[:, ::-1] * opacity, opacity), axis=2)


def _codes_from_fractions(fractions: Linear) -> NDArray[np.float32]:
    return 255.0 * np.clip(fractions, 0.0, 1.0)


def _compute_linear_of_code() -> NDArray[np.float32]:
    code = np.arange(256) / 255.0
    return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR_OF_CODE = _compute_linear_of_code()
