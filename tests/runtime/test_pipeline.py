"""The three threads of a pipeline always end: at the end of the source, after an error, after `stop`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from runtime.engines import open_engine
from runtime.engines.base import SynchronousEngine
from runtime.frame import Frame, Pixels
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.sinks.base import NullSink
from runtime.sources import open_source
from runtime.sources.base import SourceInfo
from runtime.spec import EngineSpec
from tests.runtime.conftest import UNGUARDED


class Numbers:
    """A source of tiny frames that count upwards."""

    dropped = reconnects = 0
    damage = None

    def __init__(self, count: int, *, is_live: bool = False, every_seconds: float = 0.0, fail_at: int = -1) -> None:
        self.info = SourceInfo(name="numbers", time_base=Fraction(1, 25), frame_rate=Fraction(25), is_live=is_live)
        self.warnings: list[str] = []
        self.closed = 0
        self._count, self._every, self._fail_at = count, every_seconds, fail_at

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self._count):
            if index == self._fail_at:
                raise ValueError("reader")
            time.sleep(self._every)
            pixels = np.full((2, 2, 3), index % 256, np.uint8)
            yield Frame(pixels=pixels, pts=index, time_base=Fraction(1, 25), captured_at=time.perf_counter())

    def close(self) -> None:
        self.closed += 1


class Slow(SynchronousEngine):
    """An engine that needs a given time for a frame and can fail."""

    def __init__(self, seconds: float = 0.0, fail_at: int = -1) -> None:
        super().__init__()
        self.spec, self.backend, self.provider = EngineSpec(name="slow"), "test", "cpu"
        self._seconds, self._fail_at, self._seen = seconds, fail_at, 0

    def infer(self, batch: Pixels) -> Pixels:
        if self._seen == self._fail_at:
            raise ValueError("engine")
        self._seen += 1
        time.sleep(self._seconds)
        return batch

    def close(self) -> None:
        pass


class Kept(NullSink):
    """A sink that keeps its frames in memory and can fail."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self.closings: list[bool] = []
        self._fail_at = fail_at

    def write(self, frame: Frame) -> None:
        if len(self.frames) == self._fail_at:
            raise ValueError("writer")
        self.frames.append(frame)

    def close(self, *, complete: bool) -> None:
        self.closings.append(complete)


def test_every_frame_of_a_file_arrives_in_order(clip: Path, invert: Path) -> None:
    expected = [(frame.pts, 255 - frame.pixels) for frame in open_source(str(clip))]
    sink = Kept()
    pipeline = Pipeline(open_source(str(clip)), open_engine(invert), sink, UNGUARDED)
    pipeline.run()
    assert [frame.pts for frame in sink.frames] == [pts for pts, _ in expected]
    assert all(np.array_equal(f.pixels, pixels) for f, (_, pixels) in zip(sink.frames, expected, strict=True))
    assert (pipeline.frames_read, pipeline.frames_written, pipeline.frames_dropped) == (10, 10, 0)
    assert sink.closings == [True]
    assert {stage: latencies.count for stage, latencies in pipeline.latencies.items()} == dict.fromkeys(
        pipeline.latencies, 10
    )


def test_a_pipeline_runs_once(clip: Path, invert: Path) -> None:
    with open_engine(invert, provider="cpu") as engine:
        pipeline = Pipeline(open_source(str(clip)), engine, NullSink())
        pipeline.run()
        with pytest.raises(RuntimeError, match="runs once"):
            pipeline.run()


def test_slow_engine_makes_a_file_wait() -> None:
    sink = Kept()
    pipeline = Pipeline(Numbers(20), Slow(0.01), sink, UNGUARDED)
    pipeline.run()
    assert len(sink.frames) == 20
    assert pipeline.frames_dropped == 0


def test_slow_engine_makes_a_camera_drop_and_latency_stays_bounded() -> None:
    sink = Kept()
    source = Numbers(100, is_live=True, every_seconds=0.005)
    pipeline = Pipeline(source, Slow(0.05), sink, UNGUARDED)
    pipeline.run()
    assert pipeline.frames_dropped > 50
    assert pipeline.frames_dropped + pipeline.frames_written == pipeline.frames_read == 100
    assert [frame.pts for frame in sink.frames] == sorted(frame.pts for frame in sink.frames)
    assert pipeline.latencies["total"].percentile_ms(99) < 1e3


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", ["reader", "engine", "writer"])
@pytest.mark.parametrize("at", [0, 1, 30])
def test_failure_of_any_part_ends_the_run_and_reaches_the_caller(part: str, at: int) -> None:
    source = Numbers(10_000, fail_at=at if part == "reader" else -1)
    sink = Kept(fail_at=at if part == "writer" else -1)
    pipeline = Pipeline(source, Slow(fail_at=at if part == "engine" else -1), sink, UNGUARDED)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=part):
        pipeline.run()
    assert time.perf_counter() - start < 5
    assert sink.closings == [False]
    assert source.closed
    assert not {"_read", "_infer"} & {thread.name for thread in threading.enumerate()}


@pytest.mark.timeout(10)
def test_reader_that_hangs_does_not_delay_an_error() -> None:
    class Stuck(Numbers):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            threading.Event().wait(30)

    pipeline = Pipeline(Stuck(3), Slow(fail_at=1), Kept(), UNGUARDED)
    with pytest.raises(ValueError, match="engine"):
        pipeline.run()


@pytest.mark.parametrize(("is_live", "complete"), [(False, False), (True, True)])
def test_stop_finishes_frames_in_progress(is_live: bool, complete: bool) -> None:
    sink = Kept()
    source = Numbers(10_000, is_live=is_live, every_seconds=0.001)
    pipeline = Pipeline(source, Slow(), sink, UNGUARDED)
    pipeline.listeners.append(lambda pipe, *_: pipe.frames_written == 20 and pipe.stop())
    pipeline.run()
    assert 20 <= len(sink.frames) < 100
    assert len(sink.frames) == pipeline.frames_read - pipeline.frames_dropped
    assert sink.closings == [complete]


def test_side_by_side_has_the_blurred_frame_on_the_left(invert: Path, clip: Path) -> None:
    sink = Kept()
    Pipeline(open_source(str(clip)), open_engine(invert), sink, RunOptions(guard=False, side_by_side=True)).run()
    assert sink.frames[0].size == (128, 48)
    left, right = np.split(sink.frames[0].pixels, 2, axis=1)
    assert np.array_equal(right, 255 - left)
