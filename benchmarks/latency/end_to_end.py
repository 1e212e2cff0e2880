"""The whole way of a frame: decoder, engine and encoder in the pipeline that users run."""

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
from runtime.frame import Frame, Pixels
from runtime.pipeline import Pipeline
from runtime.sinks.video import VideoSink
from runtime.sources.base import SourceInfo
from runtime.sources.video import VideoSource

RATE = Fraction(30)
"""Of the clip; how fast it is played is decided apart."""


def write_clip(path: Path, frames: Sequence[Pixels], *, count: int) -> None:
    """An H.264 clip of so many frames: `frames`, uint8[1, H, W, 3] BGR, forwards and backwards over and over."""
    there_and_back = [*frames, *frames[-2:0:-1]]
    info = SourceInfo(name="clip", time_base=1 / RATE, frame_rate=RATE)
    sink = VideoSink(path, info)
    try:
        for index, pixels in zip(range(count), itertools.cycle(there_and_back), strict=False):
            sink.write(Frame(pixels=pixels[0], pts=index, time_base=1 / RATE, captured_at=perf_counter()))
    except BaseException:
        sink.close(complete=False)
        raise
    sink.close(complete=True)


class PacedSource:
    """A video file that plays at a fixed rate, whether or not frames are taken, as a camera would.

    A frame counts as captured when it was due, so that a decoder that falls behind shows in its latency.
    """

    dropped = reconnects = 0
    damage = None

    def __init__(self, path: Path, *, rate_fps: float) -> None:
        self._video = VideoSource(path)
        self._period_s = 1 / rate_fps
        self._closed = False
        self.info = replace(self._video.info, is_live=True)
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        began = perf_counter()
        frames = iter(self._video)
        for index in itertools.count():
            due = began + index * self._period_s
            sleep(max(0.0, due - perf_counter()))
            frame = None if self._closed else next(frames, None)
            if frame is None:
                return
            yield replace(frame, captured_at=due)

    def close(self) -> None:
        self._closed = True


@dataclass(frozen=True, kw_only=True)
class Live:
    """A run at a fixed rate."""

    rate_fps: float
    latency_ms: NDArray[np.float64]
    """From when a frame was due until the encoder had taken its result, of the frames that were not dropped."""
    dropped: int


def live(engine: Engine, clip: Path, out: Path, *, rate_fps: float) -> Live:
    """Play a clip through an engine into a video file, at a fixed rate."""
    latency: list[float] = []

    def on_frame(_: Pipeline, frame: Frame, __: Pixels) -> None:
        latency.append(1e3 * (perf_counter() - frame.captured_at))

    source = PacedSource(clip, rate_fps=rate_fps)
    pipeline = Pipeline(source, engine, VideoSink(out, source.info))
    pipeline.listeners.append(on_frame)
    pipeline.run()
    return Live(rate_fps=rate_fps, latency_ms=np.array(latency), dropped=pipeline.frames_dropped)


def file_job_fps(engine: Engine, clip: Path, out: Path) -> float:
    """Frames over wall time of a clip as a file job, from opening it to the closed file."""
    began = perf_counter()
    with closing(VideoSource(clip)) as source:
        pipeline = Pipeline(source, engine, VideoSink(out, source.info))
        pipeline.run()
    return pipeline.frames_written / (perf_counter() - began)
