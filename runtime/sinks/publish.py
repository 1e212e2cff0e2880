"""To an RTSP or RTMP server, which may be away for a while."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from threading import Event, Thread
from time import perf_counter
from urllib.parse import urlsplit

import numpy as np

from runtime.channel import Channel
from runtime.errors import OutputError, UsageError
from runtime.frame import Frame
from runtime.sinks.publisher import SENT, TICK, Target
from runtime.sources.base import SourceInfo
from runtime.urls import redact

_FORMATS = {"rtsp": "rtsp", "rtsps": "rtsp", "rtmp": "flv", "rtmps": "flv"}
_TIMEOUT_S = 10.0
"""For a frame, or a connection and its first frame."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 30.0
_LEAVE_S = 2.0


class PublishSink:
    """Sends frames as H.264 through a child process, so that a server that stalls holds nothing up; no sound.

    The newest frame wins and those passed over are counted; a lost server is tried again with
    back-off, counted too. A file is sent at its own pace. Widths and heights are made even by
    leaving out the last column or row; a frame of another size opens the connection anew. Raises
    OutputError if the first connection fails.
    """

    def __init__(self, url: str, source: SourceInfo, *, timeout_s: float = _TIMEOUT_S) -> None:
        scheme = urlsplit(url).scheme.lower()
        if scheme not in _FORMATS:
            raise UsageError(f"cannot publish by {scheme}", redact(url), hint=f"use {', '.join(_FORMATS)}")
        self._url, self._format = url, _FORMATS[scheme]
        self._source, self._timeout_s = source, timeout_s
        self._frames: Channel[Frame] = Channel(1, drop_oldest=True)
        self._reasons: Counter[str] = Counter()
        self._first_error: OutputError | None = None
        self._connected = Event()
        """Set by the first connection, or its failure."""
        self._closed = Event()
        self._began = perf_counter(), 0.0
        """When a frame was sent, and its time in seconds."""
        self._lost = 0
        self._connection: _Connection | None = None
        self._thread = Thread(target=self._send_all, name="publish", daemon=True)
        self._thread.start()

    @property
    def warnings(self) -> list[str]:
        found = [f"published again {count} times: {reason}" for reason, count in self._reasons.items()]
        missed = self._lost + self._frames.dropped
        return found + ([f"{missed} frames were not published"] if missed else [])

    def write(self, frame: Frame) -> None:
        if self._connected.is_set() and not self._source.is_live:
            began, at_s = self._began
            self._closed.wait(max(0.0, began + frame.pts_seconds - at_s - perf_counter()))
        self._frames.put(frame)
        if not self._connected.is_set():
            self._connected.wait(self._timeout_s)
            self._began = perf_counter(), frame.pts_seconds
        connection = self._connection
        if connection and perf_counter() - connection.waits_since > self._timeout_s:
            connection.kill()
        if self._first_error:
            raise self._first_error

    def close(self, *, complete: bool) -> str | None:
        self._frames.close()
        self._closed.set()
        self._thread.join(_LEAVE_S)
        if self._connection:
            self._connection.kill()
            self._thread.join(_LEAVE_S)
        return redact(self._url) if self._connected.is_set() and not self._first_error else None

    def _send_all(self) -> None:
        """Connections one after the other, until there are no more frames."""
        failures = 0
        frame = self._frames.get()
        while frame is not None:
            connection = self._connection = _Connection(self._url, self._format, frame, self._source.frame_rate)
            try:
                while frame is not None and connection.takes(frame):
                    connection.send(frame)
                    self._connected.set()
                    failures = 0
                    frame = self._frames.get()
                connection.finish(_LEAVE_S)
            except OSError:
                reason = connection.reason()
                if not self._connected.is_set():
                    self._first_error = OutputError(
                        f"cannot publish ({reason})", redact(self._url), hint="check the address and the server"
                    )
                    self._connected.set()
                    return
                self._reasons[reason] += 1
                self._lost += 1
                self._closed.wait(min(_FIRST_WAIT_S * 2**failures, _LONGEST_WAIT_S))
                failures += 1
                frame = self._frames.get()


class _Connection:
    """A child process that sends frames of one size."""

    def __init__(self, url: str, kind: str, first: Frame, frame_rate: Fraction) -> None:
        self._size, self._start, self._last = first.size, first.pts * first.time_base, -1
        self._said = b""
        self.waits_since = perf_counter()
        """When the frame that is being sent was given to it; far away while there is none."""
        self._child = subprocess.Popen(
            [sys.executable, "-m", "runtime.sinks.publisher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which ends it
        )
        assert self._child.stdin
        width, height = first.size
        target = Target(url=url, format=kind, width=width, height=height, frames_per_second=float(frame_rate))
        self._child.stdin.write(target.to_line())  # not an argument, which everyone can read

    def takes(self, frame: Frame) -> bool:
        return frame.size == self._size

    def send(self, frame: Frame) -> None:
        """Returns when the frame is on its way; raises OSError if the connection is lost."""
        assert self._child.stdin
        assert self._child.stdout
        self._last = max(self._last + 1, round((frame.pts * frame.time_base - self._start) / TICK))
        self.waits_since = perf_counter()
        self._child.stdin.write(self._last.to_bytes(8, "little", signed=True))
        self._child.stdin.write(np.ascontiguousarray(frame.pixels).data)
        self._child.stdin.flush()
        self._said = self._child.stdout.read(1)
        if self._said != SENT:
            raise OSError
        self.waits_since = float("inf")

    def finish(self, seconds: float) -> None:
        """Let it take leave of the server."""
        assert self._child.stdin
        with suppress(subprocess.TimeoutExpired):
            self._child.stdin.close()
            self._child.wait(seconds)
        self.kill()
        self.reason()

    def reason(self) -> str:
        """Why it ended, which it waits for."""
        assert self._child.stdin
        assert self._child.stdout
        with suppress(OSError):  # what it was not given any more
            self._child.stdin.close()
        with self._child.stdout:
            said = (self._said + self._child.stdout.read()).decode(errors="replace").lstrip(SENT.decode())
        self._child.wait()
        return redact(" ".join(said.split())) or "the server does not answer"

    def kill(self) -> None:
        self._child.kill()
