"""Frames in the pixel format of an encoder."""

from __future__ import annotations

import av
import cv2
import numpy as np

from runtime.colour import YUV_TO_YUV, ColourTags, video_frame_from_bgr
from runtime.frame import Image, Size, as_bgr
from runtime.yuv420 import Yuv420
from runtime.yuv420p10 import Yuv420p10

_CHROMA_OF_64 = (32, 32)
"""Width and height of the chroma planes of 64x64 pixels in 4:2:0."""


def to_video_frame(image: Image, size: Size, pixel_format: str, colour: ColourTags) -> av.VideoFrame:
    """Return an image as a frame for an encoder, scaled to `size` if it has another.

    Planes stay planes in every 4:2:0 format: interleaved in `nv12`, with more bits in `yuv420p10le`. Those of 10 bits
    keep them in every YUV format that has as many. `colour` says which values the pixels of a BGR image get.
    """
    size_now = image.size if isinstance(image, Yuv420) else (image.shape[1], image.shape[0])
    form = av.VideoFormat(pixel_format)
    has_more_bits = form.components[0].bits > 8
    keeps_bits = isinstance(image, Yuv420p10) and has_more_bits and not form.is_rgb
    if isinstance(image, Yuv420) and size_now == size and (_is_420(form) or keeps_bits):
        frame = image.to_video_frame() if has_more_bits else Yuv420.to_video_frame(image)
        if pixel_format == frame.format.name:
            return frame
        tags = image.colour
        frame = frame.reformat(
            format=pixel_format,
            src_color_range=tags.range,
            dst_color_range=tags.range,
            interpolation=YUV_TO_YUV,
        )
        tags.tag(frame)
        return frame
    pixels = as_bgr(image)
    if size_now != size:
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return video_frame_from_bgr(pixels, pixel_format=pixel_format, colour=colour)


def _is_420(form: av.VideoFormat) -> bool:
    return not form.is_rgb and (form.chroma_width(64), form.chroma_height(64)) == _CHROMA_OF_64
