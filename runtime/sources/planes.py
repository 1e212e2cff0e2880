"""Decoded frames that become planes or BGR only when they are read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import av
from av.video.reformatter import ColorRange

from runtime.colour import bgr_from_video_frame
from runtime.frame import Pixels
from runtime.orientation import UPRIGHT, Orientation
from runtime.stream_format import StreamFormat
from runtime.yuv420 import Yuv420, has_8_bit_planes, has_even_size
from runtime.yuv420p10 import Yuv420p10, has_deep_planes


@dataclass(frozen=True)
class DecodedImage:
    """A decoded frame of a live source; a call converts it to uint8[H, W, 3] BGR."""

    frame: av.VideoFrame

    def __call__(self) -> Pixels:
        return bgr_from_video_frame(self.frame)


def has_planes(frame: av.VideoFrame) -> bool:
    """Return whether a decoded frame can be kept as planes: 8-bit 4:2:0, or YUV of more bits, of even size."""
    return has_8_bit_planes(frame) or has_deep_planes(frame)


def wrap_planes(planes: Pixels, *, pixel_format: str, matrix: int) -> DecodedImage:
    """Wrap a frame of a camera that states no colours: limited range, and a matrix of ITU-T H.273.

    `planes`: uint8[3 H / 2, W], luma and then the chroma of `pixel_format`, which is `yuv420p` or `nv12`.
    """
    frame = av.VideoFrame.from_ndarray(planes, format=pixel_format)
    frame.colorspace, frame.color_range = matrix, ColorRange.MPEG
    return DecodedImage(frame)


class PlanesReader:
    """Reads the frames of a source as planes; the first frame, which has planes, decides their colours and bits."""

    def __init__(self, first: av.VideoFrame) -> None:
        self._kind = Yuv420p10 if has_deep_planes(first) else Yuv420
        self._colour = self._kind.from_video_frame(first).colour

    def describe(self, stored: StreamFormat) -> StreamFormat:
        """Return the format of the frames that are read, of a source that stores them as `stored`."""
        return replace(stored, colour=self._colour, bits=10 if self._kind is Yuv420p10 else 8)

    def read(self, frame: av.VideoFrame, *, orientation: Orientation = UPRIGHT) -> Yuv420:
        """Return a decoded frame as planes, turned upright.

        An odd last row or column, which a later frame may have, is cut off. Colours that change are converted, in 8
        bits.
        """
        if not has_even_size(frame):
            pixels = orientation.apply(bgr_from_video_frame(frame))
            height, width = (side - side % 2 for side in pixels.shape[:2])
            return Yuv420.from_bgr(pixels[:height, :width], self._colour)
        planes = self._kind.from_video_frame(frame, orientation=orientation)
        return planes if planes.colour == self._colour else Yuv420.from_bgr(planes.bgr, self._colour)
