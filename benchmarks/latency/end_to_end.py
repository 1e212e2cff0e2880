"""The complete path of a frame: decoder, engine and encoder in the pipeline that users run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter, sleep

import numpy as np
from numpy.typing import NDArray

from runtime.engines.base import Engine
from runtime.frame import Frame, Image, Pixels
from runtime.pipeline import Pipeline
from runtime.sinks.video import VideoSink
from runtime.sources.base import SourceInfo
from runtime.sources.video import VideoSource
from runtime.spec import PixelFormat

CLIP_RATE_FPS = Fraction(30)
"""Frame rate in the header of the clip; the rate at which it is played is set separately."""


def write_clip(path: Path, frames: Sequence[Pixels], *, count: int) -> None:
    """Write an H.264 clip of `count` frames that plays `frames`, uint8[1, H, W, 3] BGR, forwards and backwards."""
    forwards_and_backwards = [*frames, *frames[-2:0:-1]]
    time_base = 1 / CLIP_RATE_FPS
    sink = VideoSink(path, SourceInfo(name="clip", time_base=time_base, frame_rate=CLIP_RATE_FPS))
    try:
        for index, pixels in zip(range(count), itertools.cycle(forwards_and_backwards), strict=False):
            sink.write(Frame(pixels=pixels[0], pts=index, time_base=time_base, captured_at=perf_counter()))
    except BaseException:
        sink.close(complete=False)
        raise
    sink.close(complete=True)


def open_clip(path: Path, pixels: PixelFormat) -> VideoSource:
    """Open a clip that delivers its frames in the form that an engine takes."""
    video = VideoSource(path)
    if pixels == "yuv420":
        video.deliver_planes()
    return video


class PacedSource:
    """A video file that plays at a fixed rate like a camera, whether or not its frames are taken.

    The capture time of a frame is the moment at which it was due, so that the latency includes a slow decoder.
    """

    dropped = reconnects = 0
    damage = None

    def __init__(self, path: Path, *, rate_fps: float, pixels: PixelFormat = "bgr") -> None:
        self._video = open_clip(path, pixels)
        self._period_s = 1 / rate_fps
        self._is_closed = False
        self.info = replace(self._video.info, is_live=True)
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        began = perf_counter()
        frames = iter(self._video)
        for index in itertools.count():
            due = began + index * self._period_s
            sleep(max(0.0, due - perf_counter()))
            frame = None if self._is_closed else next(frames, None)
            if frame is None:
                return
            yield replace(frame, captured_at=due)

    def close(self) -> None:
        """End the iteration before its next frame, and close the file."""
        self._is_closed = True
        self._video.close()


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """Result of a live source that plays at a fixed rate."""

    rate_fps: float
    latency_ms: NDArray[np.float64]
    """Milliseconds from when a frame was due until the encoder accepted its result, without dropped frames."""
    dropped: int


def play_live(engine: Engine, clip: Path, out: Path, *, rate_fps: float) -> LiveRun:
    """Play a clip like a camera through an engine into a video file."""
    latency_ms: list[float] = []

    def on_frame(_: Pipeline, frame: Frame, __: Image) -> None:
        latency_ms.append(1e3 * (perf_counter() - frame.captured_at))

    source = PacedSource(clip, rate_fps=rate_fps, pixels=engine.spec.pixels)
    pipeline = Pipeline(source, engine, VideoSink(out, source.info))
    pipeline.listeners.append(on_frame)
    pipeline.run()
    return LiveRun(rate_fps=rate_fps, latency_ms=np.array(latency_ms), dropped=pipeline.frames_dropped)


def run_file_job(engine: Engine, clip: Path, out: Path) -> int:
    """Restore a clip to a file, and return the number of its frames."""
    with closing(open_clip(clip, engine.spec.pixels)) as source:
        pipeline = Pipeline(source, engine, VideoSink(out, source.info))
        pipeline.run()
    return pipeline.frames_written
