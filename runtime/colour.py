"""Conversion between YUV and BGR, with the matrix and range that a stream states, and the tags that state them."""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from runtime.frame import Pixels

# Flags of libswscale: SWS_BILINEAR | SWS_ACCURATE_RND, with SWS_FULL_CHR_H_INT to RGB and SWS_FULL_CHR_H_INP from RGB.
# PyAV before 18 has no names for them but takes the numbers. Without them, each conversion through 4:2:0 darkens a
# frame by one to two codes.
_TO_RGB = 0x2 | 0x40000 | 0x2000
_FROM_RGB = 0x2 | 0x40000 | 0x4000

YUV_TO_YUV = 0x4 | 0x40000
"""The same for YUV of another form: SWS_BICUBIC | SWS_ACCURATE_RND.

Without the second, FFmpeg 8 leaves samples out of frames of more than 8 bits, when it converts in several threads.
"""

_RGB = 0
_UNSPECIFIED = 2
_PRIMARIES = frozenset({1, *range(4, 13), 22})
_TRANSFERS = frozenset({1, *range(4, 19)})
_MATRICES = frozenset({1, *range(4, 18)})
"""Code points of ITU-T H.273 that mean something; in H.264 as in FFmpeg."""
_SWSCALE_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
"""Matrices that libswscale converts with: its own numbers by the code points."""
_NEAR_SRGB = frozenset({1, 5, 6})
"""Primaries of BT.709, which are those of sRGB, and of BT.601."""
_HD_HEIGHT = 720
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
"""Names of the transfer functions of high dynamic range."""


@dataclass(frozen=True, kw_only=True)
class ColourTags:
    """Meaning of the values of a YUV stream, in the code points of ITU-T H.273; limited-range BT.709 by default."""

    primaries: int = 1
    transfer: int = 1
    matrix: int = 1
    is_full_range: bool = False
    """Whether the values of luma are 0..255 instead of 16..235."""

    @classmethod
    def read(cls, source: av.VideoFrame | av.VideoCodecContext) -> ColourTags:
        """Return the tags that fit a YUV copy of a stream: what it states, and BT.709 where it states nothing."""
        is_yuv = source.colorspace != _RGB and not (source.format and source.format.is_rgb)
        return cls(
            primaries=source.color_primaries if source.color_primaries in _PRIMARIES else 1,
            transfer=source.color_trc if source.color_trc in _TRANSFERS else 1,
            matrix=source.colorspace if source.colorspace in _MATRICES else 1,
            is_full_range=is_yuv and source.color_range == ColorRange.JPEG,
        )

    def is_default(self, height: int) -> bool:
        """Return whether players read YUV of this height right without tags: limited range, and `default_matrix`."""
        return not self.is_full_range and _swscale_matrix(self.matrix) == _swscale_matrix(default_matrix(height))

    @property
    def range(self) -> ColorRange:
        """Range of the values, as FFmpeg names it."""
        return ColorRange.JPEG if self.is_full_range else ColorRange.MPEG

    @property
    def cicp(self) -> bytes:
        """Contents of PNG's chunk `cICP` for RGB of full range; empty if viewers assume nearly the same without it."""
        if self.transfer not in HDR_TRANSFERS and self.primaries in _NEAR_SRGB:
            return b""
        return bytes((self.primaries, self.transfer, _RGB, 1))

    def tag(self, target: av.VideoFrame | av.VideoCodecContext) -> None:
        """Mark a frame or an encoder, so that players need not guess."""
        target.color_primaries, target.color_trc = self.primaries, self.transfer
        target.colorspace, target.color_range = self.matrix, self.range


BT709 = ColourTags()


def bgr_from_video_frame(frame: av.VideoFrame) -> Pixels:
    """Convert a decoded frame of any pixel format to uint8[H, W, 3] BGR, full range 0..255.

    A stream that does not state its YUV matrix is read as `default_matrix` says.
    """
    matrix = frame.colorspace if frame.format.is_rgb else read_matrix(frame)
    pixels = frame.to_ndarray(
        format="bgr24",
        src_colorspace=_swscale_matrix(matrix),
        src_color_range=frame.color_range,
        interpolation=_TO_RGB,
    )
    return np.asarray(pixels, np.uint8)


def read_matrix(frame: av.VideoFrame) -> int:
    """Return the matrix of a YUV frame as a code point of ITU-T H.273: the stated one, or `default_matrix`."""
    return int(frame.colorspace) if frame.colorspace in _MATRICES else default_matrix(frame.height)


def default_matrix(height: int) -> int:
    """Return the matrix that players assume for YUV without a stated matrix: BT.709 from 720 lines, BT.601 below."""
    return 1 if height >= _HD_HEIGHT else 6


def video_frame_from_bgr(pixels: Pixels, *, pixel_format: str, colour: ColourTags = BT709) -> av.VideoFrame:
    """Convert uint8[H, W, 3] BGR, full range, to a frame of a YUV pixel format with the matrix and range of `colour`.

    The frame has all tags of `colour`; primaries and transfer function are those of the pixels, which do not change.
    """
    matrix = _swscale_matrix(colour.matrix)
    rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24")
    rgb.colorspace = matrix  # PyAV 17 knows no name for BT.2020, and takes the matrix of this frame instead
    frame = rgb.reformat(
        format=pixel_format,
        src_color_range=ColorRange.JPEG,
        dst_colorspace=matrix,
        dst_color_range=colour.range,
        interpolation=_FROM_RGB,
    )
    colour.tag(frame)
    return frame


def _swscale_matrix(matrix: int) -> int:
    """Return libswscale's number of a matrix; BT.601 for one that it cannot convert.

    Frames are converted to BGR and back with the same one, so that the tag of the source is right for the output too.
    """
    return _SWSCALE_MATRICES.get(matrix, Colorspace.ITU601) if matrix != _RGB else _RGB
