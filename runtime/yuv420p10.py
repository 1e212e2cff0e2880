"""Frames of 10 bits: the network sees them rounded to 8 bits, and its change is added to all 10."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.colour import YUV_TO_YUV, ColourTags
from runtime.frame import Pixels
from runtime.orientation import UPRIGHT, Orientation
from runtime.yuv420 import Yuv420, has_even_size, join_planes, place_planes_beside, read_colour, split_planes

Pixels10: TypeAlias = NDArray[np.uint16]
"""uint16[3 H / 2, W]: planes in the order of I420, with values of 0..1023."""
PIXEL_FORMAT = "yuv420p10le"
"""FFmpeg's name of the form in which frames are kept."""
_CONVERTED = re.compile(r"(yuva?4[0-9]{2}p|p[024])(10|12|14|16)(le|be)")
"""FFmpeg's names of YUV of more than 8 bits; those of other subsampling or depth are converted to `PIXEL_FORMAT`."""
_MAX_CODE = 1023


@dataclass(frozen=True, eq=False)
class Yuv420p10(Yuv420):
    """A frame of even width and height as 10-bit planes; `planes` are the same, rounded to 8 bits for a network.

    Codes of 8 bits are worth 4 codes of 10 bits, in limited range exactly, and within 0.3 % in full range.
    """

    deep: Pixels10

    @classmethod
    def from_video_frame(cls, frame: av.VideoFrame, *, orientation: Orientation = UPRIGHT) -> Yuv420p10:
        """Copy the planes of a decoded frame of even width and height, and turn them upright.

        A frame of another pixel format than 10-bit 4:2:0 is converted to it.
        """
        colour = read_colour(frame)
        if frame.format.name not in (PIXEL_FORMAT, "p010le"):
            frame = frame.reformat(
                format=PIXEL_FORMAT,
                src_color_range=colour.range,
                dst_color_range=colour.range,
                interpolation=YUV_TO_YUV,
            )
        return cls.from_deep(join_planes(*(orientation.apply(plane) for plane in _view_planes(frame))), colour)

    @classmethod
    def from_deep(cls, deep: Pixels10, colour: ColourTags) -> Yuv420p10:
        """Return a frame of 10-bit planes uint16[3 H / 2, W] with this meaning."""
        return cls(_round_to_8_bits(deep), colour, deep)

    def to_video_frame(self) -> av.VideoFrame:
        """Return a frame in `yuv420p10le` for an encoder, with the tags of `colour`."""
        width, height = self.size
        frame = av.VideoFrame(width, height, PIXEL_FORMAT)
        luma, chroma = split_planes(self.deep)
        for plane, values in zip(frame.planes, (luma, *chroma), strict=True):
            _view(plane)[:, : values.shape[1]] = values
        self.colour.tag(frame)
        return frame

    def with_planes(self, planes: Pixels) -> Yuv420p10:
        """Return a frame with 4 times the change from `self.planes` to `planes` added to its 10 bits.

        Where nothing changes, the 10 bits stay as they were decoded.
        """
        change = np.asarray(cv2.subtract(planes, self.planes, dtype=cv2.CV_16S), np.int16)
        np.left_shift(change, 2, out=change)
        np.add(change, self.deep.view(np.int16), out=change)
        np.clip(change, 0, _MAX_CODE, out=change)
        return Yuv420p10(planes, self.colour, change.view(np.uint16))

    def beside(self, right: Yuv420) -> Yuv420:
        """Return one image of two with the same height and colours; of 10 bits if both are."""
        if not isinstance(right, Yuv420p10):
            return super().beside(right)
        planes, deep = (
            place_planes_beside(self.planes, right.planes),
            place_planes_beside(self.deep, right.deep),
        )
        return Yuv420p10(planes, self.colour, deep)


def has_deep_planes(frame: av.VideoFrame) -> bool:
    """Return whether a decoded frame can be kept as planes of 10 bits: YUV of more than 8 bits and of even size."""
    return bool(_CONVERTED.fullmatch(frame.format.name)) and has_even_size(frame)


def _round_to_8_bits(deep: Pixels10) -> Pixels:
    """Return 10-bit values as the nearest 8-bit ones; of two that are equally near, the even one."""
    return np.asarray(cv2.convertScaleAbs(deep, alpha=0.25), np.uint8)


def _view_planes(frame: av.VideoFrame) -> tuple[Pixels10, Pixels10, Pixels10]:
    """Return luma, U and V of a frame in `yuv420p10le` or `p010le`."""
    first, *others = (_view(plane) for plane in frame.planes)
    width, half = frame.width, frame.width // 2
    if frame.format.name == "p010le":  # the 10 bits are the upper ones of 16, U and V alternate
        luma, uv = (np.right_shift(plane[:, :width], np.uint16(6)) for plane in (first, others[0]))
        return luma, uv[:, ::2], uv[:, 1::2]
    return first[:, :width], others[0][:, :half], others[1][:, :half]


def _view(plane: av.video.plane.VideoPlane) -> Pixels10:
    """Return a plane of 16-bit words as an array that shares its memory, with the padding of its rows."""
    return np.frombuffer(memoryview(plane), np.uint16).reshape(-1, plane.line_size // 2)[: plane.height]
