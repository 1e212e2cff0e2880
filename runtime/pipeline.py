"""Source, engine and sink in three threads, joined by two bounded queues."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from threading import Lock, Thread
from time import perf_counter

import numpy as np

from runtime.blur_score import blur_score
from runtime.channel import Channel
from runtime.engines.base import Engine
from runtime.frame import Frame, Pixels
from runtime.guard import OutputGuard
from runtime.sinks.base import Sink
from runtime.sources.base import Source, SourceInfo
from runtime.timing import Latencies

_DEPTH = 4
"""Frames in each queue of a file; a live source has one, so that what waits is never old."""
_JOIN_SECONDS = 2.0
"""How long a run that failed waits for a thread that may be stuck in a library."""
STAGES = ("read", "engine", "write", "total")


class Pipeline:
    """Runs every frame of a source through an engine into a sink.

    A file source waits for the engine, so no frame of it is dropped; a live source drops the
    oldest frame that waits, and any older than `max_latency_ms` when its turn comes. Frames with
    less `blur` than `skip_sharp` go on untouched. Where the engine is shared, the frame is chosen
    when the pipeline has its `turn`, so that it is the newest then. `read`, `engine` and `write` are the times of
    the three stages, `total` is from a frame's capture to the end of its write, waits in the
    queues included.
    """

    def __init__(
        self,
        source: Source,
        engine: Engine,
        sink: Sink,
        *,
        guard: OutputGuard | None = None,
        max_latency_ms: float | None = None,
        skip_sharp: float = 0.0,
        side_by_side: bool = False,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        live = source.info.is_live
        self.frames_read = 0
        self.frames_written = 0
        self.latencies = {stage: Latencies() for stage in STAGES}
        self.seconds = 0.0
        self.kept: str | None = None
        """Where the output is, once the run is over."""
        self._source, self._engine, self._sink = source, engine, sink
        self._guard = guard
        self._max_latency_s = max_latency_ms / 1e3 if max_latency_ms and live else math.inf
        self._too_old = 0
        self._skip_sharp = skip_sharp
        self.frames_skipped = 0
        """Frames that were sharp already and went on untouched."""
        self._side_by_side = side_by_side
        self._turn = turn
        self.listeners: list[Callable[[Pipeline, Frame, Pixels], None]] = []
        """Told of every frame that was written, with its result."""
        self._captured: Channel[Frame] = Channel(1 if live else _DEPTH, drop_oldest=live)
        self._restored: Channel[tuple[Frame, Pixels]] = Channel(1 if live else _DEPTH)
        self._stopped = False
        self._error: BaseException | None = None
        self._failing = Lock()
        self._busy_since = {"engine": math.inf, "write": math.inf}
        """`perf_counter()` at the last step of each stage that has work; infinity while it has none."""

    @property
    def source(self) -> SourceInfo:
        return self._source.info

    @property
    def warnings(self) -> list[str]:
        """What was skipped, mended or left out so far, a sentence each."""
        passed = (
            f"{self.frames_passed} frames passed on as they were: {self._guard.first_reason}" if self._guard else ""
        )
        return self._source.warnings + self._sink.warnings + ([passed] if self.frames_passed else [])

    @property
    def frames_dropped(self) -> int:
        """Frames of a live source that were passed over for newer ones, or were too old."""
        return self._source.dropped + self._captured.dropped + self._too_old

    @property
    def reconnects(self) -> int:
        """How often a live source was opened again."""
        return self._source.reconnects

    @property
    def frames_passed(self) -> int:
        """Frames that went on as they were, because the engine's output could not be right."""
        return self._guard.passed if self._guard else 0

    @property
    def fps(self) -> float:
        """Frames written per second of the run so far."""
        return self.frames_written / self.seconds if self.seconds else 0.0

    @property
    def stuck_s(self) -> float:
        """How long the engine or the sink has been busy without a step forward; 0 while they wait for frames."""
        return max(0.0, perf_counter() - min(self._busy_since.values()))

    def run(self) -> None:
        """Run to the end of the source, writing in the calling thread; raises the first error, or the source's damage.

        Whatever happens, the sink is closed, so that what is written can be used, and the
        source is closed by the thread that reads it.
        """
        self._start = perf_counter()
        workers = [
            Thread(target=self._watched, args=(body, channel), name=body.__name__, daemon=True)
            for body, channel in ((self._read, self._captured), (self._infer, self._restored))
        ]
        for worker in workers:
            worker.start()
        self._watched(self._write, self._restored)
        for worker in workers:
            worker.join(_JOIN_SECONDS)
        try:
            complete = self._error is None and (not self._stopped or self._source.info.is_live)
            self.kept = self._sink.close(complete=complete)
        except Exception as error:  # noqa: BLE001 - raised below, unless another came first
            self._fail(error)
        self.seconds = perf_counter() - self._start
        self._error = self._error or self._source.damage
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more frames, finish those under way, and end; safe in a signal handler's thread."""
        self._stopped = True
        self._captured.close()
        if self._source.info.is_live:
            self._source.close()  # which may be waiting for a frame that does not come

    def _watched(self, body: Callable[[], None], output: Channel[Frame] | Channel[tuple[Frame, Pixels]]) -> None:
        try:
            body()
        except BaseException as error:  # noqa: BLE001 - `run` raises it
            self._fail(error)
        finally:
            output.close()

    def _fail(self, error: BaseException) -> None:
        with self._failing:
            self._error = self._error or error
        self._captured.close(discard=True)
        self._restored.close(discard=True)

    def _read(self) -> None:
        with closing(self._source):
            frames = iter(self._source)
            while True:
                start = perf_counter()
                frame = next(frames, None)
                if frame is None:
                    return
                self.latencies["read"].add(1e3 * (perf_counter() - start))
                if not self._captured.put(frame):
                    return
                self.frames_read += 1

    def _infer(self) -> None:
        """Keep the engine's slots busy while there are frames; never hold a result back for want of a next frame."""
        under_way: deque[tuple[Frame, float, Pixels | None]] = deque()
        while True:
            free = len(under_way) < self._engine.slots
            if not under_way:
                self._busy_since["engine"] = math.inf
            has_frame = free and self._captured.has_item(wait=not under_way)
            self._busy_since["engine"] = perf_counter()
            if has_frame:
                with self._turn():
                    frame = self._captured.get()
                    if frame is not None and self._is_fresh(frame):
                        under_way.append((frame, perf_counter(), self._submitted(frame)))
            elif under_way:
                self._pass_on(*under_way.popleft())
            else:
                self._busy_since["engine"] = math.inf
                return

    def _pass_on(self, frame: Frame, start: float, pixels: Pixels | None) -> None:
        if pixels is None:
            pixels = self._engine.collect()[0]
            self.latencies["engine"].add(1e3 * (perf_counter() - start))
            pixels = self._guard(frame.pixels, pixels) if self._guard else pixels
        self._restored.put((frame, pixels))

    def _is_fresh(self, frame: Frame) -> bool:
        fresh = perf_counter() - frame.captured_at <= self._max_latency_s
        self._too_old += not fresh
        return fresh

    def _submitted(self, frame: Frame) -> Pixels | None:
        """None once the engine has the frame, or its pixels if they are sharp already."""
        if self._skip_sharp > 0 and blur_score(frame.pixels) < self._skip_sharp:
            self.frames_skipped += 1
            return frame.pixels
        self._engine.submit(frame.pixels[np.newaxis])
        return None

    def _write(self) -> None:
        while (item := self._restored.get()) is not None:
            frame, pixels = item
            self._busy_since["write"] = perf_counter()
            with self.latencies["write"].measure():
                shown = np.hstack((frame.pixels, pixels)) if self._side_by_side else pixels
                self._sink.write(frame.with_pixels(shown))
            self.latencies["total"].add(1e3 * (perf_counter() - frame.captured_at))
            self.frames_written += 1
            self.seconds = perf_counter() - self._start
            for listener in self.listeners:
                listener(self, frame, pixels)
            self._busy_since["write"] = math.inf
