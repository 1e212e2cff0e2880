"""Decoded frames that become planes or BGR only when they are read."""

from __future__ import annotations

from dataclasses import dataclass

import av

from runtime.colour import ColourTags, bgr_from_video_frame
from runtime.frame import Pixels
from runtime.yuv420 import Yuv420, has_even_size, rotate


@dataclass(frozen=True)
class DecodedImage:
    """A decoded frame of a live source; a call converts it to uint8[H, W, 3] BGR."""

    frame: av.VideoFrame

    def __call__(self) -> Pixels:
        return bgr_from_video_frame(self.frame)


def read_planes(frame: av.VideoFrame, colour: ColourTags, *, rotation: int = 0) -> Yuv420:
    """Return a decoded frame as planes with the meaning `colour`; `rotation` in degrees, counter-clockwise.

    A source has planes only if its first frame has an even size. An odd last row or column of a later one is cut off.
    """
    if not has_even_size(frame):
        pixels = rotate(bgr_from_video_frame(frame), rotation)
        height, width = (side - side % 2 for side in pixels.shape[:2])
        return Yuv420.from_bgr(pixels[:height, :width], colour)
    planes = Yuv420.from_video_frame(frame, rotation=rotation)
    return planes if planes.colour == colour else Yuv420.from_bgr(planes.bgr, colour)
