"""Frames as the decoder gives them: the planes of YUV 4:2:0, without a conversion to BGR."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from runtime.colour import YUV_TO_YUV, ColourTags, bgr_from_video_frame, read_matrix, video_frame_from_bgr
from runtime.frame import Image, Pixels, Size, as_bgr
from runtime.orientation import UPRIGHT, Orientation, Sample

PIXEL_FORMATS = {"yuv420p": False, "yuvj420p": True, "nv12": False}
"""FFmpeg's names of 8-bit 4:2:0; true where the name itself states the full range."""


@dataclass(frozen=True, eq=False)
class Yuv420:
    """A frame of even width and height as 8-bit planes: luma, and chroma at half of both."""

    planes: Pixels
    """uint8[3 H / 2, W]: the bytes of I420, which are luma H x W, then U and V of H/2 x W/2 each."""
    colour: ColourTags
    """Meaning of the values."""

    @classmethod
    def from_video_frame(cls, frame: av.VideoFrame, *, orientation: Orientation = UPRIGHT) -> Yuv420:
        """Copy the planes of a decoded frame of even width and height, and turn them upright.

        A frame of another pixel format than 8-bit 4:2:0 is converted to it.
        """
        if frame.format.name not in PIXEL_FORMATS:
            full = frame.color_range == ColorRange.JPEG
            frame = frame.reformat(format="yuvj420p" if full else "yuv420p", interpolation=YUV_TO_YUV)
        colour = read_colour(frame)
        return cls(join_planes(*(orientation.apply(plane) for plane in _view_planes(frame))), colour)

    @classmethod
    def from_bgr(cls, pixels: Pixels, colour: ColourTags) -> Yuv420:
        """Convert uint8[H, W, 3] BGR, H and W even; `colour` says which values the planes get."""
        frame = video_frame_from_bgr(pixels, pixel_format="yuv420p", colour=colour)
        return replace(cls.from_video_frame(frame), colour=colour)

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        rows, width = self.planes.shape
        return width, rows * 2 // 3

    @property
    def luma(self) -> Pixels:
        """uint8[H, W]."""
        return self.planes[: self.size[1]]

    @property
    def chroma(self) -> Pixels:
        """uint8[2, H / 2, W / 2]: U and V."""
        return split_planes(self.planes)[1]

    @cached_property
    def bgr(self) -> Pixels:
        """uint8[H, W, 3] BGR, full range; converted at the first use, with the chroma in the middle of its square."""
        return np.ascontiguousarray(bgr_from_video_frame(self.to_video_frame()))

    def to_video_frame(self) -> av.VideoFrame:
        """Return a frame in `yuv420p` for an encoder, with the tags of `colour`; it uses the same memory if it can."""
        # PyAV 18 takes two rows too few from a buffer whose height is not a multiple of 4.
        wrap = av.VideoFrame.from_ndarray if self.size[1] % 4 else av.VideoFrame.from_numpy_buffer
        frame = wrap(self.planes, format="yuv420p")
        self.colour.tag(frame)
        return frame

    def with_planes(self, planes: Pixels) -> Yuv420:
        """Return a frame with other planes that mean the same."""
        return Yuv420(planes, self.colour)

    def with_bgr(self, pixels: Pixels) -> Yuv420:
        """Return a frame with the change from `self.bgr` to other pixels uint8[H, W, 3] BGR added to its planes.

        Where nothing changes, the planes stay as they are: neither conversion loses anything of them.
        """
        before, after = (Yuv420.from_bgr(image, self.colour).planes for image in (self.bgr, pixels))
        change = cv2.subtract(after, before, dtype=cv2.CV_16S)
        return self.with_planes(np.asarray(cv2.add(self.planes, change, dtype=cv2.CV_8U), np.uint8))

    def beside(self, right: Yuv420) -> Yuv420:
        """Return one image of two with the same height and colours."""
        return Yuv420(place_planes_beside(self.planes, right.planes), self.colour)


def place_beside(left: Image, right: Image) -> Image:
    """Return one image of two with the same height, both BGR or both planes of the same colours."""
    if isinstance(left, Yuv420) and isinstance(right, Yuv420):
        return left.beside(right)
    return np.hstack((as_bgr(left), as_bgr(right)))


def has_8_bit_planes(frame: av.VideoFrame) -> bool:
    """Return whether a decoded frame can be kept as planes: 8-bit 4:2:0 of even width and height."""
    return frame.format.name in PIXEL_FORMATS and has_even_size(frame)


def has_even_size(frame: av.VideoFrame) -> bool:
    """Return whether width and height of a frame are even."""
    return frame.width % 2 == 0 and frame.height % 2 == 0


def read_colour(frame: av.VideoFrame) -> ColourTags:
    """Return the meaning of the values of a YUV frame; what it does not state is as players assume."""
    is_full_range = PIXEL_FORMATS.get(frame.format.name, False) or frame.color_range == ColorRange.JPEG
    return replace(ColourTags.read(frame), matrix=read_matrix(frame), is_full_range=is_full_range)


def _view_planes(frame: av.VideoFrame) -> tuple[Pixels, ...]:
    """Return views of luma, U and V; of luma and the pairs uint8[H / 2, W / 2, 2] of U and V for NV12."""
    first, *others = (
        np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: plane.height]
        for plane in frame.planes
    )
    width, half = frame.width, frame.width // 2
    if frame.format.name == "nv12":
        return first[:, :width], others[0][:, : 2 * half].reshape(-1, half, 2)
    return first[:, :width], others[0][:, :half], others[1][:, :half]


def split_planes(planes: NDArray[Sample]) -> tuple[NDArray[Sample], NDArray[Sample]]:
    """Return views of planes [3 H / 2, W]: luma [H, W] and chroma [2, H / 2, W / 2]."""
    rows, width = planes.shape
    height = rows * 2 // 3
    return planes[:height], planes[height:].reshape(2, height // 2, width // 2)


def join_planes(luma: NDArray[Sample], *chroma: NDArray[Sample]) -> NDArray[Sample]:
    """Return planes [3 H / 2, W] in new memory; `chroma` is U and V, or their pairs [H / 2, W / 2, 2] as in NV12."""
    height, width = luma.shape
    planes = np.empty((height * 3 // 2, width), luma.dtype)
    target, u_and_v = split_planes(planes)
    target[:] = luma
    if len(chroma) == 1:
        cv2.split(chroma[0], list(u_and_v))  # as fast as a copy
    else:
        u_and_v[0], u_and_v[1] = chroma
    return planes


def place_planes_beside(left: NDArray[Sample], right: NDArray[Sample]) -> NDArray[Sample]:
    """Return the planes of one image of those of two with the same height."""
    (luma, chroma), (right_luma, right_chroma) = split_planes(left), split_planes(right)
    return join_planes(np.hstack((luma, right_luma)), *np.concatenate((chroma, right_chroma), axis=2))
