"""Frames on standard output, for other programs."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO, Literal

import cv2
import numpy as np

from runtime.colour import ColourTags, default_matrix, video_frame_from_bgr
from runtime.errors import OutputError
from runtime.frame import Frame
from runtime.sinks.conversion import to_video_frame
from runtime.sources.base import SourceInfo
from runtime.yuv420 import Yuv420
from runtime.yuv420p10 import PIXEL_FORMAT, Yuv420p10

PipeFormat = Literal["y4m", "raw"]
_PLACE = "standard output"


class PipeSink:
    """Writes frames to standard output as YUV4MPEG2 (`y4m`) or as raw uint8[H, W, 3] BGR (`raw`).

    Y4M is limited-range 4:2:0, or 4:4:4 at odd sizes. Its header does not state a matrix: as readers assume, it is
    BT.709 from 720 lines and BT.601 below. Planes that mean that are written as they are, others are converted. Planes
    of 10 bits keep them, also those of PQ and HLG in limited range, whose meaning the reader has to be told. Neither
    format has time stamps: frames follow one another, and the header of Y4M holds the nominal rate. Later frames of
    another size are scaled to the size of the first.

    `stream` replaces standard output in tests. Raises OutputError when the reader closes the pipe.
    """

    def __init__(self, source: SourceInfo, *, kind: PipeFormat, stream: BinaryIO | None = None) -> None:
        self._kind, self._rate, self._ratio = kind, source.frame_rate, source.format.sample_aspect_ratio
        self._stream = stream or sys.stdout.buffer
        self._size: tuple[int, int] | None = None
        self._scaled = 0
        self._colour = source.format.colour
        self._is_deep = kind == "y4m" and _can_be_deep(source)
        self.warnings = source.format.tag_warnings("frames on standard output")
        self.warnings += source.format.depth_warnings(PIXEL_FORMAT if self._is_deep else "yuv420p")

    def write(self, frame: Frame) -> None:
        """Write a frame and flush it."""
        if self._size is None:
            self._size = frame.size
            self._send(self._header())
        image = frame.pixels
        is_same_size = frame.size == self._size
        if self._is_deep:
            if not (isinstance(image, Yuv420p10) and is_same_size):
                self._scaled += not is_same_size
                yuv = to_video_frame(image, self._size, PIXEL_FORMAT, self._colour)
                image = Yuv420p10.from_video_frame(yuv)
            self._send(b"FRAME\n" + image.deep.astype("<u2", copy=False).tobytes())
            return
        if (
            self._kind == "y4m"
            and is_same_size
            and isinstance(image, Yuv420)
            and image.colour.is_default(frame.size[1])
        ):
            self._send(b"FRAME\n" + image.planes.tobytes())
            return
        pixels = frame.bgr
        if not is_same_size:
            pixels = np.asarray(cv2.resize(pixels, self._size, interpolation=cv2.INTER_AREA), np.uint8)
            self._scaled += 1
        if self._kind == "raw":
            self._send(np.ascontiguousarray(pixels).tobytes())
            return
        yuv = video_frame_from_bgr(
            pixels,
            pixel_format="yuv420p" if self._is_even else "yuv444p",
            colour=ColourTags(matrix=default_matrix(self._size[1])),
        )
        self._send(b"FRAME\n" + yuv.to_ndarray().tobytes())

    def close(self, *, complete: bool) -> str | None:
        """Add the warning about scaled frames and return `standard output`, which stays open; None without frames."""
        if self._scaled:
            self.warnings.append(f"{self._scaled} frames changed size and were scaled to the first")
        return _PLACE if self._size else None

    @property
    def _is_even(self) -> bool:
        assert self._size
        return self._size[0] % 2 == 0 and self._size[1] % 2 == 0

    def _header(self) -> bytes:
        if self._kind == "raw":
            return b""
        assert self._size
        width, height = self._size
        chroma = ("420p10 XYSCSS=420P10" if self._is_deep else "420mpeg2") if self._is_even else "444"
        rate = f"{self._rate.numerator}:{self._rate.denominator}"
        ratio = f"{self._ratio.numerator}:{self._ratio.denominator}"
        return f"YUV4MPEG2 W{width} H{height} F{rate} Ip A{ratio} C{chroma} XCOLORRANGE=LIMITED\n".encode()

    def _send(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            # The interpreter writes what is still buffered when it ends, which would fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise OutputError("reader has closed the output", _PLACE, hint="check the program after |") from error


def _can_be_deep(source: SourceInfo) -> bool:
    """Return whether Y4M gets planes of 10 bits: those that readers assume, and those whose meaning they are told."""
    colour, size = source.format.colour, source.size
    is_known = size is not None and colour.is_default(size[1])
    return source.format.bits == 10 and (is_known or (bool(source.format.range_name) and not colour.is_full_range))
