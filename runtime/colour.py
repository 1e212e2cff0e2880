"""Conversion between YUV and BGR, with the matrix and range that a stream states."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from runtime.frame import Pixels

# Flags of libswscale: SWS_BILINEAR | SWS_ACCURATE_RND, with SWS_FULL_CHR_H_INT to RGB and SWS_FULL_CHR_H_INP from RGB.
# PyAV before 18 has no names for them but takes the numbers. Without them, each conversion through 4:2:0 darkens a
# frame by one to two codes.
_TO_RGB = 0x2 | 0x40000 | 0x2000
_FROM_RGB = 0x2 | 0x40000 | 0x4000

_UNSPECIFIED = 2
"""libavutil's AVCOL_SPC_UNSPECIFIED."""
_HD_HEIGHT = 720


def bgr_from_video_frame(frame: av.VideoFrame) -> Pixels:
    """Convert a decoded frame of any pixel format to uint8[H, W, 3] BGR, full range 0..255.

    A stream that does not state its YUV matrix is read as `default_colorspace` says.
    """
    colorspace = frame.colorspace
    if colorspace == _UNSPECIFIED:
        colorspace = default_colorspace(frame.height)
    pixels = frame.to_ndarray(
        format="bgr24", src_colorspace=colorspace, src_color_range=frame.color_range, interpolation=_TO_RGB
    )
    return np.asarray(pixels, np.uint8)


def default_colorspace(height: int) -> Colorspace:
    """Return the matrix that players assume for YUV without a stated matrix: BT.709 from 720 lines, BT.601 below."""
    return Colorspace.ITU709 if height >= _HD_HEIGHT else Colorspace.ITU601


def video_frame_from_bgr(
    pixels: Pixels, *, pixel_format: str, colorspace: Colorspace = Colorspace.ITU709
) -> av.VideoFrame:
    """Convert uint8[H, W, 3] BGR, full range, to a limited-range frame of a YUV pixel format.

    A frame in BT.709, the default, is tagged as such.
    """
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24").reformat(
        format=pixel_format,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=colorspace,
        dst_color_range=ColorRange.MPEG,
        interpolation=_FROM_RGB,
    )
    if colorspace == Colorspace.ITU709:
        tag_bt709(frame)
    return frame


def tag_bt709(target: av.VideoFrame | av.VideoCodecContext) -> None:
    """Mark a frame or an encoder as limited-range BT.709, so that players need not guess."""
    target.colorspace = Colorspace.ITU709
    target.color_range = ColorRange.MPEG
    target.color_primaries = ColorPrimaries.BT709
    target.color_trc = ColorTrc.BT709
