"""Publishes frames to an RTSP or RTMP server, and connects again when the server goes away."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import suppress
from threading import Event, Thread
from time import perf_counter
from urllib.parse import urlsplit

import av

from runtime.channel import Channel
from runtime.errors import OutputError, UsageError
from runtime.frame import Frame, Pixels
from runtime.redaction import redact, redact_address
from runtime.sinks.encoder_settings import DEFAULT_SETTINGS, EncoderSettings
from runtime.sinks.encoders import choose_encoder
from runtime.sinks.hdr_options import hdr_warnings
from runtime.sinks.publisher import SENT, TICK, Target
from runtime.sources.base import SourceInfo
from runtime.urls import find_scheme
from runtime.yuv420 import Yuv420
from runtime.yuv420p10 import PIXEL_FORMAT, Pixels10, Yuv420p10

_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv"}
_TIMEOUT_S = 10.0
"""Seconds in which a frame has to be sent; for the first frame of a connection, connecting is included."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
"""Seconds to wait before the first attempt to reconnect, and at most; the wait doubles with each attempt."""
_CLOSE_S = 2.0
"""Seconds to let a connection close before it is killed."""


class PublishSink:
    """Sends frames without sound, from a child process: a server that stalls never blocks a live source.

    Frames of 10 bits keep them in HEVC; in H.264, which few players show with 10, only on request.

    Only the newest frame waits to be sent; frames that it replaces are counted in `warnings`. After a lost connection
    it connects again with growing waits, which is counted too. Frames of a file are sent at the pace of their time
    stamps. An odd last column or row is cut off; a frame of another size opens a new connection. The first `write`
    raises OutputError if the first connection fails.
    """

    def __init__(
        self,
        url: str,
        source: SourceInfo,
        *,
        timeout_s: float = _TIMEOUT_S,
        encoder: EncoderSettings = DEFAULT_SETTINGS,
    ) -> None:
        scheme = find_scheme(url)
        try:
            urlsplit(url)
        except ValueError as error:
            raise UsageError(f"not an address ({error})", url, hint="check the address") from error
        if scheme not in _FORMATS:
            raise UsageError(f"cannot publish by {scheme}", url, hint=f"use {', '.join(_FORMATS)}")
        if choose_encoder(encoder).codec == "av1":
            raise UsageError("AV1 is not published", url, hint="use the codec h264 or hevc")
        self._encoder = encoder
        self._bits = _choose_bits(source, encoder)
        self._url, self._format = url, _FORMATS[scheme]
        self._source, self._timeout_s = source, timeout_s
        self._frames: Channel[Frame] = Channel(1, drop_oldest=True)
        self._reasons: Counter[str] = Counter()
        self._first_error: OutputError | None = None
        self._has_connected = Event()
        """Set when the first connection has sent a frame or has failed."""
        self._closed = Event()
        self._pace_origin = perf_counter(), 0.0
        """`perf_counter()` when the first frame was sent, and the presentation time of that frame, in seconds."""
        self._lost_frames = 0
        self._connection: _Connection | None = None
        self._thread = Thread(target=self._send_all, name="publish", daemon=True)
        self._thread.start()

    @property
    def warnings(self) -> list[str]:
        """Bits that are not sent, reasons of lost connections, and the number of frames that were not sent."""
        sentences = [f"reconnections to the server: {count} ({reason})" for reason, count in self._reasons.items()]
        missing = self._lost_frames + self._frames.dropped
        sentences += [f"{missing} frames were not published"] if missing else []
        form = self._source.format
        lost = form.depth_warnings(PIXEL_FORMAT if self._bits == 10 else "yuv420p") + hdr_warnings("", form.hdr)
        return lost + sentences

    def write(self, frame: Frame) -> None:
        """Pass a frame to the sending thread; the first call waits until it is sent."""
        if self._has_connected.is_set() and not self._source.is_live:
            started_at, start_s = self._pace_origin
            self._closed.wait(max(0.0, started_at + frame.pts_seconds - start_s - perf_counter()))
        self._frames.put(frame)
        if not self._has_connected.is_set():
            self._has_connected.wait(self._timeout_s)
            self._pace_origin = perf_counter(), frame.pts_seconds
        connection = self._connection
        if connection and perf_counter() - connection.sending_since > self._timeout_s:
            connection.kill()
        if self._first_error:
            raise self._first_error

    def close(self, *, complete: bool) -> str | None:
        """End the connection and return the address without its password; None if no frame was sent."""
        self._frames.close()
        self._closed.set()
        self._thread.join(_CLOSE_S)
        if self._connection:
            self._connection.kill()
            self._thread.join(_CLOSE_S)
        return redact_address(self._url) if self._has_connected.is_set() and not self._first_error else None

    def _create_target(self, first: Frame) -> Target:
        """Return the server and the format of a stream of frames like `first`."""
        width, height = (side - side % 2 for side in first.size)
        return Target(
            url=self._url,
            format=self._format,
            width=width,
            height=height,
            frames_per_second=float(self._source.frame_rate),
            sample_aspect_ratio=float(self._source.format.sample_aspect_ratio),
            colour=self._source.format.colour,
            encoder=self._encoder,
            bits=self._bits,
        )

    def _send_all(self) -> None:
        """Send frames over one connection after the other, until there are no more frames."""
        failures = 0
        frame = self._frames.get()
        while frame is not None:
            connection = self._connection = _Connection(self._create_target(frame), frame)
            try:
                while frame is not None and connection.accepts(frame):
                    connection.send(frame)
                    self._has_connected.set()
                    failures = 0
                    frame = self._frames.get()
                connection.finish(_CLOSE_S)
            except OSError:
                reason = connection.wait_for_reason()
                if not self._has_connected.is_set():
                    self._first_error = OutputError(
                        f"cannot publish ({reason})", self._url, hint="check the address and the server"
                    )
                    self._has_connected.set()
                    return
                self._reasons[reason] += 1
                self._lost_frames += 1
                self._closed.wait(min(_FIRST_WAIT_S * 2**failures, _LONGEST_WAIT_S))
                failures += 1
                frame = self._frames.get()


class _Connection:
    """A child process that sends frames of one size."""

    def __init__(self, target: Target, first: Frame) -> None:
        self._size, self._start, self._last_tick = first.size, first.pts * first.time_base, -1
        self._answer = b""
        self.sending_since = perf_counter()
        """`perf_counter()` when the frame that is being sent was passed to the child; infinity between frames."""
        self._child = subprocess.Popen(
            [sys.executable, "-m", "runtime.sinks.publisher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which ends the child
        )
        assert self._child.stdin
        self._target = target
        self._child.stdin.write(target.to_line())  # every user of the machine could read an argument

    def accepts(self, frame: Frame) -> bool:
        """Return whether a frame has the size of this connection."""
        return frame.size == self._size

    def send(self, frame: Frame) -> None:
        """Send a frame and wait until the child has sent it; raises OSError if the connection is lost."""
        assert self._child.stdin
        assert self._child.stdout
        self._last_tick = max(self._last_tick + 1, round((frame.pts * frame.time_base - self._start) / TICK))
        self.sending_since = perf_counter()
        self._child.stdin.write(self._last_tick.to_bytes(8, "little", signed=True))
        self._child.stdin.write(self._to_planes(frame).data)
        self._child.stdin.flush()
        self._answer = self._child.stdout.read(1)
        if self._answer != SENT:
            raise OSError
        self.sending_since = float("inf")

    def _to_planes(self, frame: Frame) -> Pixels | Pixels10:
        """Return the planes of a frame; an odd last column or row is cut off."""
        image = frame.pixels
        if not isinstance(image, Yuv420):
            height, width = (side - side % 2 for side in image.shape[:2])
            image = Yuv420.from_bgr(image[:height, :width], self._target.colour)
        if self._target.bits == 8:
            return image.planes
        if not isinstance(image, Yuv420p10):
            image = Yuv420p10.from_video_frame(image.to_video_frame())
        return image.deep

    def finish(self, timeout_s: float) -> None:
        """Let the child close its connection to the server, and kill it after the timeout."""
        assert self._child.stdin
        with suppress(subprocess.TimeoutExpired):
            self._child.stdin.close()
            self._child.wait(timeout_s)
        self.kill()
        self.wait_for_reason()

    def wait_for_reason(self) -> str:
        """Wait until the child has ended and return its reason on one line, without passwords."""
        assert self._child.stdin
        assert self._child.stdout
        with suppress(OSError):  # closing flushes what the child no longer reads
            self._child.stdin.close()
        with self._child.stdout:
            message = (self._answer + self._child.stdout.read()).decode(errors="replace").lstrip(SENT.decode())
        self._child.wait()
        return redact(" ".join(message.split())) or "the server does not answer"

    def kill(self) -> None:
        """End the child at once."""
        self._child.kill()


def _choose_bits(source: SourceInfo, encoder: EncoderSettings) -> int:
    """Return the bits of the frames to send: 10 where the source has them, and the encoder is to have them."""
    is_deep = choose_encoder(encoder).codec == "hevc"
    if encoder.pixel_format:
        try:
            is_deep = av.VideoFormat(encoder.pixel_format).components[0].bits > 8
        except ValueError as error:
            raise UsageError(f"unknown pixel format {encoder.pixel_format!r}", hint="use FFmpeg's names") from error
    return 10 if is_deep and source.format.bits == 10 else 8
