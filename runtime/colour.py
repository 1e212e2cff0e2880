"""YUV and BGR, with the matrix and the range that a stream states."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from runtime.frame import Pixels

# libswscale's SWS_BILINEAR | SWS_ACCURATE_RND, with SWS_FULL_CHR_H_INT towards RGB and
# SWS_FULL_CHR_H_INP from it; PyAV before 18 has no names for them, but takes the numbers.
# Without them every pass through 4:2:0 darkens a frame by one to two codes.
_TO_RGB = 0x2 | 0x40000 | 0x2000
_FROM_RGB = 0x2 | 0x40000 | 0x4000

# libavutil's AVCOL_SPC_UNSPECIFIED, and what players assume then.
_UNSPECIFIED = 2
_HD_HEIGHT = 720


def bgr_from_video_frame(frame: av.VideoFrame) -> Pixels:
    """A decoded frame of any pixel format -> uint8[H, W, 3] BGR, full range.

    Where the stream does not say, YUV is taken for BT.709 from 720 lines up and for BT.601
    below, as players do.
    """
    colorspace = frame.colorspace
    if colorspace == _UNSPECIFIED:
        colorspace = assumed(frame.height)
    pixels = frame.to_ndarray(
        format="bgr24", src_colorspace=colorspace, src_color_range=frame.color_range, interpolation=_TO_RGB
    )
    return np.asarray(pixels, np.uint8)


def assumed(height: int) -> Colorspace:
    """The matrix of YUV that does not say which it is."""
    return Colorspace.ITU709 if height >= _HD_HEIGHT else Colorspace.ITU601


def video_frame_from_bgr(
    pixels: Pixels, *, pixel_format: str, colorspace: Colorspace = Colorspace.ITU709
) -> av.VideoFrame:
    """uint8[H, W, 3] BGR -> a limited-range frame of a YUV pixel format, BT.709 and tagged so unless told otherwise."""
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


def tag_bt709(described: av.VideoFrame | av.VideoCodecContext) -> None:
    """Mark a frame or an encoder as limited-range BT.709, so that players need not guess."""
    described.colorspace = Colorspace.ITU709
    described.color_range = ColorRange.MPEG
    described.color_primaries = ColorPrimaries.BT709
    described.color_trc = ColorTrc.BT709
