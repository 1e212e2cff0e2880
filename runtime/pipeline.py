"""A pipeline: source, engine and sink in three threads with two bounded queues between them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from threading import Lock, Thread
from time import perf_counter

import numpy as np

from runtime.blur_score import blur_score
from runtime.channel import Channel
from runtime.engines.base import Engine
from runtime.frame import Frame, Image, Pixels, as_bgr
from runtime.guard import OutputGuard
from runtime.options import RunOptions
from runtime.sinks.base import Sink
from runtime.sources.base import Source, SourceInfo
from runtime.timing import Latencies
from runtime.yuv420 import Yuv420, place_beside

_QUEUE_FRAMES = 4
"""Capacity of each queue for a file; for a live source it is 1, so that a waiting frame is never old."""
_JOIN_S = 2.0
"""Seconds to wait, after a run has failed, for a thread that may be stuck in a library."""
STAGES = ("read", "engine", "write", "total")
Listener = Callable[["Pipeline", Frame, Image], None]
"""Called with the pipeline, the blurred frame and its result after each frame that was written."""


class Pipeline:
    """Runs every frame of a source through an engine into a sink.

    The source delivers the form that the engine takes, or planes of 10 bits, which also go around an engine for BGR.

    A file source waits for the engine, so none of its frames is dropped. A live source drops the oldest waiting frame,
    and frames older than `options.max_latency_ms` when the engine takes them. The guard of `options` replaces
    impossible results, and frames with a blur score below `options.skip_blur_score` are written unchanged.

    A pipeline reads `guard`, `strict`, `max_latency_ms`, `skip_blur_score` and `side_by_side` of `options`; the default
    is `RunOptions()`.
    `turn` is a context manager that is entered around the choice and submission of a frame; pipelines that share an
    engine wait in it, so that the chosen frame is the newest.

    Latencies are in milliseconds: `read`, `engine` and `write` of the three stages, and `total` from the capture of a
    frame to the end of its write, including the time in the queues.
    """

    def __init__(
        self,
        source: Source,
        engine: Engine,
        sink: Sink,
        options: RunOptions | None = None,
        *,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        options = options or RunOptions()
        is_live = source.info.is_live
        self.frames_written = 0
        self.frames_skipped = 0
        """Number of frames that were sharp enough to be written unchanged."""
        self.latencies = {stage: Latencies() for stage in STAGES}
        self.seconds = 0.0
        """Duration of the run so far."""
        self.kept: str | None = None
        """Place of the output, after the run; None if nothing was kept."""
        self.listeners: list[Listener] = []
        self._source, self._engine, self._sink = source, engine, sink
        self._takes_planes = engine.spec.pixels == "yuv420"
        self._guard = OutputGuard(strict=options.strict) if options.guard else None
        self._max_latency_s = options.max_latency_ms / 1e3 if options.max_latency_ms and is_live else math.inf
        self._dropped_before_run = source.dropped
        """Number of frames that a live source dropped while the engine was opened, which is no part of the run."""
        self._too_old = 0
        self._skip_blur_score = options.skip_blur_score
        self._side_by_side = options.side_by_side
        self._turn = turn
        capacity = 1 if is_live else _QUEUE_FRAMES
        self._captured: Channel[Frame] = Channel(capacity, drop_oldest=is_live)
        self._restored: Channel[tuple[Frame, Image]] = Channel(capacity)
        self._has_run = self._stopped = False
        self._error: BaseException | None = None
        self._failing = Lock()
        self._busy_since = {"engine": math.inf, "write": math.inf}
        """`perf_counter()` at the last step of each stage that has work; infinity while it has none."""

    @property
    def source(self) -> SourceInfo:
        """Facts about the source."""
        return self._source.info

    @property
    def warnings(self) -> list[str]:
        """Sentences about what was skipped, repaired or left out so far."""
        rejected = []
        if self._guard and self._guard.rejected:
            rejected = [
                f"{self._guard.rejected} impossible results were replaced by their input: {self._guard.first_reason}"
            ]
        return self._source.warnings + self._sink.warnings + rejected

    @property
    def frames_read(self) -> int:
        """Number of frames that the source delivered, including those of a live source that were dropped at once.

        Each of them is written, dropped, or still in work; after an error, the frames in work are lost.
        """
        return self._captured.added + self._dropped_by_source

    @property
    def frames_dropped(self) -> int:
        """Number of frames of a live source that were replaced by newer ones or were too old, since `run` began."""
        return self._dropped_by_source + self._captured.dropped + self._too_old

    @property
    def _dropped_by_source(self) -> int:
        return self._source.dropped - self._dropped_before_run

    @property
    def frames_rejected(self) -> int:
        """Number of frames whose result was impossible, so that the blurred frame was written."""
        return self._guard.rejected if self._guard else 0

    @property
    def reconnects(self) -> int:
        """Number of times a live source was opened again."""
        return self._source.reconnects

    @property
    def fps(self) -> float:
        """Frames written per second of the run so far."""
        return self.frames_written / self.seconds if self.seconds else 0.0

    @property
    def stuck_s(self) -> float:
        """Seconds since the engine or the sink last made progress on a frame; 0 while both wait for frames."""
        return max(0.0, perf_counter() - min(self._busy_since.values()))

    def run(self) -> None:
        """Run to the end of the source; the sink writes in the calling thread.

        Raises the first error of any stage, or the source's damage at its end. In every case the sink is closed, so
        that what was written can be used, and the source is closed by the thread that reads it. Raises RuntimeError if
        the pipeline has run before.
        """
        if self._has_run:
            raise RuntimeError("a pipeline runs once; make another one")
        self._has_run = True
        self._start, self._dropped_before_run = perf_counter(), self._source.dropped
        workers = [
            Thread(target=self._run_stage, args=(stage, channel), name=stage.__name__, daemon=True)
            for stage, channel in ((self._read, self._captured), (self._infer, self._restored))
        ]
        for worker in workers:
            worker.start()
        self._run_stage(self._write, self._restored)
        for worker in workers:
            worker.join(_JOIN_S)
        try:
            complete = self._error is None and (not self._stopped or self._source.info.is_live)
            self.kept = self._sink.close(complete=complete)
        except Exception as error:  # noqa: BLE001 - raised below, unless another error came first
            self._fail(error)
            with suppress(Exception):
                self.kept = self._sink.close(complete=False)
        self.seconds = perf_counter() - self._start
        self._error = self._error or self._source.damage
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more frames, finish those in progress, and end; may be called from a signal handler."""
        self._stopped = True
        self._captured.close()
        if self._source.info.is_live:
            self._source.close()  # it may be waiting for a frame that never comes

    def _run_stage(self, stage: Callable[[], None], output: Channel[Frame] | Channel[tuple[Frame, Image]]) -> None:
        try:
            stage()
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

    def _infer(self) -> None:
        """Keep the engine's slots busy while there are frames, and never delay a result to wait for the next frame."""
        in_progress: deque[tuple[Frame, float, Image | None]] = deque()
        while True:
            has_free_slot = len(in_progress) < self._engine.slots
            if not in_progress:
                self._busy_since["engine"] = math.inf
            has_frame = has_free_slot and self._captured.has_item(wait=not in_progress)
            self._busy_since["engine"] = perf_counter()
            if has_frame:
                with self._turn():
                    frame = self._captured.get()
                    if frame is not None and self._is_fresh(frame):
                        in_progress.append((frame, perf_counter(), self._submit(frame)))
            elif in_progress:
                self._collect(*in_progress.popleft())
            else:
                self._busy_since["engine"] = math.inf
                return

    def _is_fresh(self, frame: Frame) -> bool:
        is_fresh = perf_counter() - frame.captured_at <= self._max_latency_s
        self._too_old += not is_fresh
        return is_fresh

    def _submit(self, frame: Frame) -> Image | None:
        """Submit a frame to the engine and return None; return its pixels instead if it is sharp enough."""
        pixels = frame.pixels
        if self._skip_blur_score > 0:
            score = blur_score(pixels.luma if isinstance(pixels, Yuv420) else pixels)
            if score < self._skip_blur_score:
                self.frames_skipped += 1
                return pixels
        self._engine.submit(self._to_engine(pixels)[np.newaxis])
        return None

    def _to_engine(self, pixels: Image) -> Pixels:
        """Return a frame in the form that the engine takes: planes of 10 bits go around an engine for BGR."""
        return pixels.planes if isinstance(pixels, Yuv420) and self._takes_planes else as_bgr(pixels)

    def _collect(self, frame: Frame, submitted_at: float, pixels: Image | None) -> None:
        """Queue a result for the sink; `pixels` are those of a skipped frame, None where the engine has the frame."""
        if pixels is None:
            pixels = self._from_engine(frame.pixels, self._engine.collect()[0])
            self.latencies["engine"].add(1e3 * (perf_counter() - submitted_at))
            pixels = self._guard(frame.pixels, pixels) if self._guard else pixels
        self._restored.put((frame, pixels))

    def _from_engine(self, pixels: Image, result: Pixels) -> Image:
        """Return the result of the engine for a frame, in the form of the frame."""
        if not isinstance(pixels, Yuv420):
            return result
        return pixels.with_planes(result) if self._takes_planes else pixels.with_bgr(result)

    def _write(self) -> None:
        while (item := self._restored.get()) is not None:
            frame, pixels = item
            self._busy_since["write"] = perf_counter()
            with self.latencies["write"].measure():
                shown = place_beside(frame.pixels, pixels) if self._side_by_side else pixels
                self._sink.write(frame.with_pixels(shown))
            self.latencies["total"].add(1e3 * (perf_counter() - frame.captured_at))
            self.frames_written += 1
            self.seconds = perf_counter() - self._start
            for listener in self.listeners:
                listener(self, frame, pixels)
            self._busy_since["write"] = math.inf
