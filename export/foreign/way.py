"""One way to run a foreign network on a frame: pixel ranges, channel order, output and residual."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.foreign.ranges import CODES, Channels, PixelRange, compute_conversion
from runtime.frame import Pixels

Residual = Literal["own", "added", "subtracted"]
"""Kind of output: the restored image (`own`), or a residual that is added to the image or subtracted from it."""
LUMA_BGR = (0.114, 0.587, 0.299)
"""Weights of blue, green and red in the gray image that a network for one channel gets (ITU-R BT.601)."""


@dataclass(frozen=True)
class Way:
    """One way to run a network on a frame."""

    range: PixelRange
    """Range of the images that the network takes."""
    output_range: PixelRange
    """Range of the images that it gives; that of its input for a residual."""
    channels: Channels
    residual: Residual
    output: str

    @property
    def range_name(self) -> str:
        """Names of both ranges, of one if they are the same."""
        same = self.range == self.output_range
        return self.range.name if same else f"{self.range.name} to {self.output_range.name}"

    def has_same_result_as(self, other: Way) -> bool:
        """Return whether both take the same output for the same: an image, or a residual."""
        return (self.residual, self.output) == (other.residual, other.output)

    def describe(self) -> str:
        """Return the way as text, such as `0..1 rgb`."""
        kind = "" if self.residual == "own" else f", residual {self.residual}"
        return f"{self.range_name} {self.channels}{kind}"


def list_ways(pixel_range: PixelRange, known: list[PixelRange], channels: Channels, output: str) -> Iterator[Way]:
    """Yield the ways to read an output: an image in the range of the input or in another one, or a residual."""
    yield Way(pixel_range, pixel_range, channels, "own", output)
    yield Way(pixel_range, pixel_range, channels, "added", output)
    yield Way(pixel_range, pixel_range, channels, "subtracted", output)
    for other in known:
        if other != pixel_range:
            yield Way(pixel_range, other, channels, "own", output)


def to_network(frame: Pixels, pixel_range: PixelRange, channels: Channels) -> NDArray[np.float32]:
    """Return uint8[H, W, 3] BGR as a network takes it: float32[1, C, H, W]."""
    image = frame.astype(np.float32)
    if channels == "gray":
        image = image @ np.array(LUMA_BGR, np.float32)[:, np.newaxis]
    elif channels == "rgb":
        image = image[..., ::-1]
    factor, offset = compute_conversion(CODES, pixel_range, channels)
    values: NDArray[np.float32] = image.transpose(2, 0, 1)[np.newaxis] * factor + offset
    return np.ascontiguousarray(values)


def from_network(frame: Pixels, values: NDArray[np.float32], result: NDArray[np.float32], way: Way) -> Pixels:
    """Return what a network made of a frame as uint8[H, W, 3] BGR; a gray result changes the luma alone."""
    if way.residual != "own":
        result = values + result if way.residual == "added" else values - result
    factor, offset = compute_conversion(way.output_range, CODES, way.channels)
    codes = (result * factor + offset)[0]
    if way.channels == "gray":
        source_factor, source_offset = compute_conversion(way.range, CODES, way.channels)
        image = frame + (codes - (values * source_factor + source_offset)[0])[0, :, :, np.newaxis]
    else:
        image = codes.transpose(1, 2, 0)
        image = image[..., ::-1] if way.channels == "rgb" else image
    pixels: Pixels = np.rint(np.nan_to_num(image).clip(0, 255)).astype(np.uint8)
    return pixels
