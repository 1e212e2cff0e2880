"""What the status page knows of one stream: its newest frame, its last two minutes, and how it is."""

from __future__ import annotations

import statistics as numbers
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
from runtime.frame import Frame, Pixels
from runtime.pipeline import Pipeline
from runtime.report import to_dict
from runtime.urls import redact

State = Literal["starting", "running", "waiting", "stuck", "done", "failed"]

CURVE_S = 120
"""Seconds of the latency curve."""
_RATE_S = 5
_ALIGNED = 16
"""JPEG codes colour in blocks of so many pixels; the halves of a pair share none."""
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]
_KEPT_WIDTHS = 4


@dataclass(frozen=True)
class Pair:
    """The newest frame before and after, in one JPEG: left and right, with filling between them."""

    number: int
    """Counts the frames of the stream from 1."""
    width: int
    """Of either half, in pixels; the right one begins so far from the right edge."""
    jpeg: bytes


@dataclass(frozen=True)
class Health:
    """How a stream is."""

    state: State
    reason: str
    """Why it is neither running nor done, in a few words; otherwise empty."""
    last_frame_age_s: float | None
    """Since the last written frame; None before the first."""

    @property
    def live(self) -> bool:
        """Has neither failed nor is stuck: starting the process again would help nothing."""
        return self.state not in ("failed", "stuck")

    @property
    def ready(self) -> bool:
        """Gives frames, or has given all of them."""
        return self.state in ("running", "done")


class Stream:
    """One pipeline, watched; `on_frame` costs it a few microseconds, JPEGs are made by who asks for them.

    A stream without a frame for `stale_s` seconds waits for its source; one whose engine or sink
    works on the same frame for `stuck_s` seconds is stuck.
    """

    def __init__(self, pipeline: Pipeline, engine: Engine, *, stale_s: float, stuck_s: float) -> None:
        self.name = redact(pipeline.source.name)
        self.pipeline = pipeline
        self.engine = engine
        self._stale_s, self._stuck_s = stale_s, stuck_s
        self._changed = Condition()
        self._newest: tuple[Pixels, Pixels] | None = None
        self._number = 0
        self._since = perf_counter()
        """When the last frame was written, or else the stream began."""
        self._seconds: deque[_Second] = deque(maxlen=CURVE_S + 1)
        self._second = _Second(0)
        self._ended: Literal["", "done", "failed"] = ""
        self._error = ""
        self._left = False
        self._encoding = Lock()
        self._encoded: dict[int, Pair] = {}

    def on_frame(self, _pipeline: Pipeline, frame: Frame, pixels: Pixels) -> None:
        """Take note of a written frame and its result, uint8[H, W, 3] BGR each, which nobody changes any more."""
        now = perf_counter()
        with self._changed:
            if int(now) != self._second.at:
                self._second.close()
                self._second = _Second(int(now))
                self._seconds.append(self._second)
            self._second.latencies_ms.append(1e3 * (now - frame.captured_at))
            self._newest = (frame.pixels, pixels)
            self._number += 1
            self._since = now
            self._changed.notify_all()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the pipeline's `run`: remembers how it ended."""
        self._since = perf_counter()
        try:
            yield
        except BaseException as error:
            self._error = redact(" ".join(str(error).split()) or type(error).__name__)
            self._ended = "failed"
            raise
        self._ended = "done"

    def leave(self) -> None:
        """Let nobody wait for a frame any more."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def pair(self, *, after: int, width: int, wait_s: float) -> Pair | None:
        """The newest frame, once it is another one than number `after`; None if there is none within `wait_s`.

        Each half is scaled down to `width` pixels where it is wider. A frame is encoded once for
        all who ask for the same width.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._left or (self._newest and self._number != after), wait_s)
            newest, number = self._newest, self._number
        if newest is None or number == after or self._left:
            return None
        with self._encoding:
            known = self._encoded.get(width)
            if known is None or known.number < number:
                if len(self._encoded) == _KEPT_WIDTHS:
                    self._encoded.clear()
                known = self._encoded[width] = _encoded(newest, number, width)
            return known

    def health(self) -> Health:
        """How it is now."""
        silent_s = perf_counter() - self._since
        age_s = silent_s if self._number else None
        stuck_s = self.pipeline.stuck_s
        if self._ended:
            return Health(self._ended, self._error, age_s)
        if stuck_s >= self._stuck_s:
            return Health("stuck", f"engine or output busy with one frame for {stuck_s:.0f} s", age_s)
        if silent_s >= self._stale_s:
            return Health("waiting", f"no frame for {silent_s:.0f} s", age_s)
        return Health("running", "", age_s) if self._number else Health("starting", "no frame yet", age_s)

    def facts(self) -> dict[str, Any]:
        """All that the page shows, for JSON; `statistics` with the stream's health and curve."""
        health = self.health()
        curve = self._curve()
        recent = [count or 0 for count in curve["frames"][-_RATE_S:]]
        values = to_dict(self.pipeline)
        return values | {
            "warnings": [redact(warning) for warning in values["warnings"]],
            "engine": self.engine.spec.to_dict(),
            "backend": self.engine.backend,
            **health_facts(self.name, health),
            "fps_now": sum(recent) / _RATE_S,
            "curve": curve,
        }

    def _curve(self) -> dict[str, list[Any]]:
        """Of each whole second of the last two minutes, oldest first; None where no frame was written."""
        now = int(perf_counter())
        with self._changed:
            if self._second.at < now:
                self._second.close()
            seconds = {second.at: second for second in self._seconds}
        row = [seconds.get(at) for at in range(now - CURVE_S, now)]
        return {
            "frames": [second and second.frames for second in row],
            "p50_ms": [second and round(second.p50_ms, 3) for second in row],
            "max_ms": [second and round(second.max_ms, 3) for second in row],
        }


def health_facts(name: str, health: Health) -> dict[str, Any]:
    """For JSON; `since` is the time of the last frame, by the machine's clock."""
    age_s = health.last_frame_age_s
    since = datetime.now(timezone.utc) - timedelta(seconds=age_s) if age_s is not None else None
    return {
        "source": name,
        "state": health.state,
        "reason": health.reason,
        "live": health.live,
        "ready": health.ready,
        "last_frame_age_s": None if age_s is None else round(age_s, 3),
        "since": since and since.isoformat(timespec="seconds"),
    }


class _Second:
    """Latencies of the frames written within one second, and what is left of them after it."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.latencies_ms: list[float] = []
        self.frames = 0
        self.p50_ms = self.max_ms = 0.0

    def close(self) -> None:
        if self.latencies_ms:
            self.frames = len(self.latencies_ms)
            self.p50_ms, self.max_ms = numbers.median_low(self.latencies_ms), max(self.latencies_ms)
            self.latencies_ms = []


def _encoded(newest: tuple[Pixels, Pixels], number: int, width: int) -> Pair:
    height, full = newest[0].shape[:2]
    width = min(width, full)
    size = (width, max(1, round(height * width / full)))
    before, after = (cv2.resize(half, size, interpolation=cv2.INTER_AREA) if width < full else half for half in newest)
    filling = np.repeat(before[:, -1:], _ALIGNED - width % _ALIGNED, axis=1)
    found, jpeg = cv2.imencode(".jpg", np.hstack((before, filling, after)), _JPEG)
    if not found:
        raise ValueError(f"OpenCV cannot encode a frame of {full}x{height} as JPEG")
    return Pair(number, width, jpeg.tobytes())
