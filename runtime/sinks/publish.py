"""To an RTSP or RTMP server, which may be away for a while."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from fractions import Fraction
from threading import Event, Thread
from time import perf_counter
from urllib.parse import urlsplit

import av
import numpy as np
from av.error import FFmpegError

from runtime.channel import Channel
from runtime.colour import tag_bt709, video_frame_from_bgr
from runtime.errors import OutputError, UsageError
from runtime.frame import Frame
from runtime.sources.base import SourceInfo
from runtime.sources.urls import redacted

_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv"}
_MUXER = {"rtsp": {"rtsp_transport": "tcp"}, "flv": {"flvflags": "no_duration_filesize"}}
_ENCODER = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
_KEY_FRAME_EVERY_S = 2
"""What a new viewer waits for."""
_TIMEOUT_S = 10.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_LEAVE_S = 2.0
_TICK = Fraction(1, 90_000)


class PublishSink:
    """Sends frames as H.264 from a thread of its own, so that a slow network holds nothing up; no sound.

    The newest frame wins and those passed over are counted; a lost server is tried again with
    back-off, counted too. A file is sent at its own pace. Widths and heights are made even by
    leaving out the last column or row; a frame of another size opens the connection anew. Raises
    OutputError if the first connection fails.
    """

    def __init__(self, url: str, source: SourceInfo) -> None:
        scheme = urlsplit(url).scheme.lower()
        if scheme not in _FORMATS:
            raise UsageError(f"cannot publish by {scheme}", redacted(url), hint=f"use {', '.join(_FORMATS)}")
        self._url, self._format = url, _FORMATS[scheme]
        self._source = source
        self._frames: Channel[Frame] = Channel(1, drop_oldest=True)
        self._reasons: Counter[str] = Counter()
        self._first_error: OutputError | None = None
        self._connected = Event()
        """Set by the first connection, or its failure."""
        self._closed = Event()
        self._began: tuple[float, float] | None = None
        self._lost = 0
        self._thread = Thread(target=self._send_all, name="publish", daemon=True)
        self._thread.start()

    @property
    def warnings(self) -> list[str]:
        found = [f"published again {count} times: {reason}" for reason, count in self._reasons.items()]
        missed = self._lost + self._frames.dropped
        return found + ([f"{missed} frames were not published"] if missed else [])

    def write(self, frame: Frame) -> None:
        if not self._source.is_live:
            self._keep_pace(frame)
        self._frames.put(frame)
        if not self._connected.is_set():
            self._connected.wait(_TIMEOUT_S + _LEAVE_S)
        if self._first_error:
            raise self._first_error

    def close(self, *, complete: bool) -> str | None:
        self._frames.close()
        self._closed.set()
        self._thread.join(_LEAVE_S)
        return redacted(self._url) if self._connected.is_set() and not self._first_error else None

    def _keep_pace(self, frame: Frame) -> None:
        now = perf_counter()
        self._began = self._began or (now, frame.pts_seconds)
        self._closed.wait(max(0.0, self._began[0] + frame.pts_seconds - self._began[1] - now))

    def _send_all(self) -> None:
        """Connections one after the other, until there are no more frames."""
        failures = 0
        frame = self._frames.get()
        while frame is not None:
            try:
                with _Connection(self._url, self._format, frame, self._source.frame_rate) as connection:
                    self._connected.set()
                    while frame is not None and connection.takes(frame):
                        connection.send(frame)
                        failures = 0
                        frame = self._frames.get()
            except (FFmpegError, OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or redacted(str(error))
                if not self._connected.is_set():
                    self._first_error = OutputError(
                        f"cannot publish ({reason})", redacted(self._url), hint="check the address and the server"
                    )
                    self._connected.set()
                    return
                self._reasons[reason] += 1
                self._lost += 1
                self._closed.wait(min(_FIRST_WAIT_S * 2**failures, _LONGEST_WAIT_S))
                failures += 1
                frame = self._frames.get()


class _Connection:
    """One encoder and one muxer, for frames of one size."""

    def __init__(self, url: str, kind: str, first: Frame, frame_rate: Fraction) -> None:
        self._size = first.size
        self._container = av.open(url, "w", format=kind, options=_MUXER[kind], timeout=_TIMEOUT_S)
        self._stream = self._container.add_stream("libx264", rate=frame_rate, options=dict(_ENCODER))
        self._stream.width, self._stream.height = (side - side % 2 for side in first.size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = self._stream.codec_context.time_base = _TICK
        self._stream.codec_context.gop_size = max(1, round(_KEY_FRAME_EVERY_S * frame_rate))
        self._stream.codec_context.max_b_frames = 0
        tag_bt709(self._stream.codec_context)
        self._start = first.pts * first.time_base
        self._last = -1
        self._container.start_encoding()  # which connects

    def __enter__(self) -> _Connection:  # noqa: PYI034 - Self is new in Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(FFmpegError, OSError):  # it may be lost
            self._container.close()

    def takes(self, frame: Frame) -> bool:
        return frame.size == self._size

    def send(self, frame: Frame) -> None:
        pixels = np.ascontiguousarray(frame.pixels[: self._stream.height, : self._stream.width])
        picture = video_frame_from_bgr(pixels, pixel_format="yuv420p")
        self._last = max(self._last + 1, round((frame.pts * frame.time_base - self._start) / _TICK))
        picture.pts, picture.time_base = self._last, _TICK
        self._container.mux(self._stream.encode(picture))
