"""Values of black and white in the images of a foreign network, for all channels or for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Channels = Literal["rgb", "bgr", "gray"]
Factors = NDArray[np.float32]
"""One value, or one for each channel: float32[C, 1, 1]."""


@dataclass(frozen=True)
class PixelRange:
    """Values of black and of full white, one for all channels or one each for red, green and blue."""

    name: str
    black: tuple[float, ...]
    white: tuple[float, ...]

    @property
    def is_plain(self) -> bool:
        """Whether all channels have the same values."""
        return len(self.black) == 1


def normalize_range(mean: tuple[float, ...], std: tuple[float, ...]) -> PixelRange:
    """Return the range of (x - mean) / std, x in 0..1: one value for all channels or three for red, green and blue."""
    if len(mean) != len(std):
        count = max(len(mean), len(std))
        mean, std = (values * (count // len(values)) for values in (mean, std))
    black = tuple(-m / s for m, s in zip(mean, std, strict=True))
    white = tuple((1 - m) / s for m, s in zip(mean, std, strict=True))
    means, stds = (",".join(f"{value:g}" for value in values) for values in (mean, std))
    return PixelRange(f"mean {means} std {stds}", black, white)


_IMAGENET = normalize_range((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT = PixelRange("0..1", (0.0,), (1.0,))
CODES = PixelRange("0..255", (0.0,), (255.0,))
RANGES: dict[str, PixelRange] = {
    "0..1": UNIT,
    "-1..1": PixelRange("-1..1", (-1.0,), (1.0,)),
    "0..255": CODES,
    "imagenet": PixelRange("imagenet", _IMAGENET.black, _IMAGENET.white),
}
"""Ranges by name; `imagenet` is what torchvision's networks take."""


def compute_conversion(source: PixelRange, target: PixelRange, channels: Channels) -> tuple[Factors, Factors]:
    """Return factor and offset of an image float32[..., C, H, W] from one range to another: x * factor + offset."""
    (black, white), (target_black, target_white) = (_arrange(values, channels) for values in (source, target))
    factor = (target_white - target_black) / (white - black)
    return factor.astype(np.float32), (target_black - black * factor).astype(np.float32)


def _arrange(values: PixelRange, channels: Channels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return black and white as float64[C, 1, 1] in the order of the channels."""
    order = slice(None, None, -1 if channels == "bgr" else 1)
    black, white = (np.array(ends[order], np.float64).reshape(-1, 1, 1) for ends in (values.black, values.white))
    return black, white
