"""Frames to standard output, for other programs."""

from __future__ import annotations

import os
import sys
from typing import BinaryIO, Literal

import cv2
import numpy as np

from runtime.colour import assumed, video_frame_from_bgr
from runtime.errors import OutputError
from runtime.frame import Frame
from runtime.sources.base import SourceInfo

PipeFormat = Literal["y4m", "raw"]
_WHERE = "standard output"


class PipeSink:
    """`y4m`: YUV4MPEG2, 4:2:0 limited range, or 4:4:4 at odd sizes; `raw`: uint8 BGR, row by row.

    Y4M does not say its matrix: BT.709 from 720 lines up and BT.601 below, as readers take it.
    Neither knows time stamps: the nominal rate is in the header, frames follow one another. The
    first frame decides the size. Raises OutputError when nobody reads any more.
    """

    def __init__(self, source: SourceInfo, *, kind: PipeFormat, stream: BinaryIO | None = None) -> None:
        self._kind, self._rate = kind, source.frame_rate
        self._stream = stream or sys.stdout.buffer
        self._size: tuple[int, int] | None = None
        self._scaled = 0
        self.warnings: list[str] = []

    def write(self, frame: Frame) -> None:
        pixels = frame.pixels
        if self._size is None:
            self._size = frame.size
            self._send(self._header())
        elif frame.size != self._size:
            pixels = np.asarray(cv2.resize(pixels, self._size, interpolation=cv2.INTER_AREA), np.uint8)
            self._scaled += 1
        if self._kind == "raw":
            self._send(np.ascontiguousarray(pixels).tobytes())
            return
        picture = video_frame_from_bgr(
            pixels, pixel_format="yuv420p" if self._even else "yuv444p", colorspace=assumed(self._size[1])
        )
        self._send(b"FRAME\n" + picture.to_ndarray().tobytes())

    def close(self, *, complete: bool) -> str:
        if self._scaled:
            self.warnings = [f"{self._scaled} frames changed size and were scaled to the first"]
        return _WHERE

    @property
    def _even(self) -> bool:
        assert self._size
        return self._size[0] % 2 == 0 and self._size[1] % 2 == 0

    def _header(self) -> bytes:
        if self._kind == "raw":
            return b""
        assert self._size
        width, height = self._size
        chroma = "420mpeg2" if self._even else "444"
        rate = f"{self._rate.numerator}:{self._rate.denominator}"
        return f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C{chroma} XCOLORRANGE=LIMITED\n".encode()

    def _send(self, data: bytes) -> None:
        try:
            self._stream.write(data)
            self._stream.flush()
        except OSError as error:
            # What is buffered would fail again when the interpreter ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise OutputError("nobody reads the output any more", _WHERE, hint="check the program after |") from error
