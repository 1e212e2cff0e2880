"""State of one stream on the status page: its newest frame, the latencies of its last two minutes, and its health."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from threading import Condition, Lock
from time import perf_counter
from typing import Any, Literal

import cv2
import numpy as np

from runtime.engines.base import Engine
from runtime.frame import Frame, Image, as_bgr
from runtime.pipeline import Pipeline
from runtime.redaction import redact
from runtime.report import to_dict

State = Literal["starting", "running", "waiting", "stuck", "done", "failed"]

CURVE_S = 120
"""Length of the latency curve in seconds."""
_RATE_S = 5
"""Seconds over which the current frame rate is averaged."""
_JPEG_BLOCK_PX = 16
"""Width of a JPEG's colour block; the two halves of a pair share no block, so that no colour crosses the border."""
_JPEG_OPTIONS = [cv2.IMWRITE_JPEG_QUALITY, 85]
_MAX_CACHED_WIDTHS = 4


@dataclass(frozen=True)
class FramePair:
    """The newest frame before and after restoration in one JPEG: left and right half, with padding between them."""

    number: int
    """Number of the frame in its stream, counted from 1."""
    width: int
    """Width of each half in pixels; the right half ends at the right edge of the image."""
    jpeg: bytes


@dataclass(frozen=True)
class Health:
    """Health of a stream at one moment."""

    state: State
    reason: str
    """Reason for a state other than running and done, in a few words; else empty."""
    last_frame_age_s: float | None
    """Seconds since the last frame was written; None before the first frame."""

    @property
    def is_live(self) -> bool:
        """Whether the stream has neither failed nor is stuck; if not, the process should be started again."""
        return self.state not in ("failed", "stuck")

    @property
    def is_ready(self) -> bool:
        """Whether the stream writes frames, or has written all of them."""
        return self.state in ("running", "done")

    def to_dict(self, source: str) -> dict[str, Any]:
        """Return the fields for JSON; `since` is the wall-clock time (UTC) of the last frame."""
        age_s = self.last_frame_age_s
        since = datetime.now(timezone.utc) - timedelta(seconds=age_s) if age_s is not None else None
        return {
            "source": source,
            "state": self.state,
            "reason": self.reason,
            "live": self.is_live,
            "ready": self.is_ready,
            "last_frame_age_s": None if age_s is None else round(age_s, 3),
            "since": since and since.isoformat(timespec="seconds"),
        }


class Stream:
    """A pipeline as the status page sees it.

    `on_frame` costs the pipeline a few microseconds; JPEGs are encoded in the threads of the clients that request them.
    The stream is `waiting` after `stale_s` seconds without a frame, and `stuck` when its engine or sink has worked on
    the same frame for `stuck_s` seconds.
    """

    def __init__(self, pipeline: Pipeline, engine: Engine, *, stale_s: float, stuck_s: float) -> None:
        self.name = redact(pipeline.source.name)
        self.pipeline = pipeline
        self.engine = engine
        self._stale_s, self._stuck_s = stale_s, stuck_s
        self._changed = Condition()
        self._newest: tuple[Image, Image] | None = None
        self._number = 0
        self._last_frame_at = perf_counter()
        """Time of the last written frame; before the first frame, the start of the stream."""
        self._history: deque[_SecondOfLatencies] = deque(maxlen=CURVE_S + 1)
        self._current = _SecondOfLatencies(0)
        self._final_state: Literal["", "done", "failed"] = ""
        self._error = ""
        self._is_closing = False
        self._encoding = Lock()
        self._encoded: dict[int, FramePair] = {}
        """The newest encoded pair for each requested width."""

    def on_frame(self, _pipeline: Pipeline, frame: Frame, pixels: Image) -> None:
        """Record a written frame and its result; neither may be changed afterwards."""
        now = perf_counter()
        with self._changed:
            if int(now) != self._current.second:
                self._current.summarize()
                self._current = _SecondOfLatencies(int(now))
                self._history.append(self._current)
            self._current.latencies_ms.append(1e3 * (now - frame.captured_at))
            self._newest = (frame.pixels, pixels)
            self._number += 1
            self._last_frame_at = now
            self._changed.notify_all()

    @contextmanager
    def track_run(self) -> Iterator[None]:
        """Record how the body, which is the pipeline's `run`, ends."""
        self._last_frame_at = perf_counter()
        try:
            yield
        except BaseException as error:
            self._error = redact(" ".join(str(error).split()) or type(error).__name__)
            self._final_state = "failed"
            raise
        self._final_state = "done"

    def release_clients(self) -> None:
        """End all waits for a frame, now and in future."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()

    def wait_for_pair(self, *, after: int, width: int, wait_s: float) -> FramePair | None:
        """Return the newest frame once its number is not `after`; None if there is no such frame within `wait_s`.

        Each half is scaled down to `width` pixels if it is wider. A frame is encoded once for all clients that request
        the same width.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing or (self._newest and self._number != after), wait_s)
            newest, number = self._newest, self._number
        if newest is None or number == after or self._is_closing:
            return None
        with self._encoding:
            pair = self._encoded.get(width)
            if pair is None or pair.number < number:
                if len(self._encoded) == _MAX_CACHED_WIDTHS:
                    self._encoded.clear()
                pair = self._encoded[width] = _encode_pair(newest, number, width)
            return pair

    def check_health(self) -> Health:
        """Return the health at this moment."""
        silent_s = perf_counter() - self._last_frame_at
        age_s = silent_s if self._number else None
        stuck_s = self.pipeline.stuck_s
        if self._final_state:
            return Health(self._final_state, self._error, age_s)
        if stuck_s >= self._stuck_s:
            return Health("stuck", f"engine or output busy with one frame for {stuck_s:.0f} s", age_s)
        if silent_s >= self._stale_s:
            return Health("waiting", f"no frame for {silent_s:.0f} s", age_s)
        return Health("running", "", age_s) if self._number else Health("starting", "no frame yet", age_s)

    def to_dict(self) -> dict[str, Any]:
        """Return everything that the page shows, for JSON: the fields of `--stats`, health, rate and latency curve."""
        curve = self._latency_curve()
        counts = [count or 0 for count in curve["frames"]]
        first = next((second for second, count in enumerate(counts) if count), len(counts))
        recent = counts[max(first, len(counts) - _RATE_S) :]
        values = to_dict(self.pipeline)
        return values | {
            "warnings": [redact(warning) for warning in values["warnings"]],
            "engine": self.engine.spec.to_dict(),
            "backend": self.engine.backend,
            **self.check_health().to_dict(self.name),
            "fps_now": sum(recent) / max(1, len(recent)),
            "curve": curve,
        }

    def _latency_curve(self) -> dict[str, list[Any]]:
        """Return a value for each second of the last two minutes, oldest first; None for a second without frames."""
        now = int(perf_counter())
        with self._changed:
            if self._current.second < now:
                self._current.summarize()
            by_second = {entry.second: entry for entry in self._history}
        row = [by_second.get(second) for second in range(now - CURVE_S, now)]
        return {
            "frames": [entry and entry.frames for entry in row],
            "p50_ms": [entry and round(entry.p50_ms, 3) for entry in row],
            "max_ms": [entry and round(entry.max_ms, 3) for entry in row],
        }


class _SecondOfLatencies:
    """Latencies of the frames written within one second; after `summarize` only their count, median and maximum."""

    def __init__(self, second: int) -> None:
        self.second = second
        self.latencies_ms: list[float] = []
        self.frames = 0
        self.p50_ms = self.max_ms = 0.0

    def summarize(self) -> None:
        if self.latencies_ms:
            self.frames = len(self.latencies_ms)
            self.p50_ms, self.max_ms = statistics.median_low(self.latencies_ms), max(self.latencies_ms)
            self.latencies_ms = []


def _encode_pair(newest: tuple[Image, Image], number: int, width: int) -> FramePair:
    halves = [as_bgr(half) for half in newest]
    height, full_width = halves[0].shape[:2]
    width = min(width, full_width)
    size = (width, max(1, round(height * width / full_width)))
    before, after = (
        cv2.resize(half, size, interpolation=cv2.INTER_AREA) if width < full_width else half for half in halves
    )
    padding = np.repeat(before[:, -1:], _JPEG_BLOCK_PX - width % _JPEG_BLOCK_PX, axis=1)
    is_encoded, jpeg = cv2.imencode(".jpg", np.hstack((before, padding, after)), _JPEG_OPTIONS)
    if not is_encoded:
        raise ValueError(f"OpenCV cannot encode a frame of {full_width}x{height} as JPEG")
    return FramePair(number, width, jpeg.tobytes())
