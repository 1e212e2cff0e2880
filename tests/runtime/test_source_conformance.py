"""Conformance suite of sources: the contract of `runtime/sources/base.py`, checked for every kind of source.

A new source adds one line to `SOURCES`: a function that makes a small input in an empty folder and opens it. An input
that cannot be read adds one line to `UNREADABLE`.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from fractions import Fraction
from functools import partial
from itertools import count, islice, pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.errors import DeblurError, InputError, SourceLostError
from runtime.frame import Frame, Pixels
from runtime.sinks.pipe import PipeSink
from runtime.sources import RawFrames, Source, SourceInfo, Watch, open_source
from runtime.sources.camera import CameraFeed
from runtime.sources.live import LiveSource
from runtime.sources.video import VideoSource
from runtime.stream_format import PLAIN
from tests.conftest import make_image, write_clip
from tests.rig import free_port, skip_without_gstreamer

FRAMES = 10
SIZE = (64, 48)
WATCH = Watch(timeout_s=5, first_wait_s=0.01, longest_wait_s=0.01)


def open_video(folder: Path, stack: ExitStack, suffix: str = ".mp4", decoder: str = "auto") -> Source:
    if ":" in decoder:
        skip_without_gstreamer(decoder.partition(":")[2], "gdppay")
    write_clip(folder / f"clip{suffix}", audio="aac")
    return open_source(str(folder / f"clip{suffix}"), decoder=decoder)


def open_images(folder: Path, stack: ExitStack, number: int = FRAMES) -> Source:
    for index in range(number):
        cv2.imwrite(str(folder / f"{index}.png"), make_image(*SIZE, seed=index))
    return open_source(str(folder / "0.png" if number == 1 else folder))


def open_fifo(folder: Path, stack: ExitStack) -> Source:
    write_clip(folder / "clip.mkv")
    os.mkfifo(folder / "fifo.mkv")
    write_in_background(folder / "fifo.mkv", (folder / "clip.mkv").read_bytes())
    return open_source(str(folder / "fifo.mkv"))


def open_stdin(folder: Path, stack: ExitStack, raw: RawFrames | None = None) -> Source:
    """Y4M or raw frames through a real pipe on descriptor 0."""
    content = io.BytesIO()
    info = SourceInfo(name="test", time_base=Fraction(1, 25), frame_rate=Fraction(25))
    sink = PipeSink(info, kind="raw" if raw else "y4m", stream=content)
    for index in range(FRAMES):
        sink.write(Frame(pixels=make_image(*SIZE, seed=index), pts=index, time_base=info.time_base, captured_at=0.0))
    read_end, write_end = os.pipe()
    stack.callback(os.close, original := os.dup(0))
    stack.callback(os.dup2, original, 0)
    os.dup2(read_end, 0)
    os.close(read_end)
    write_in_background(write_end, content.getvalue())
    return open_source("-", raw=raw)


def write_in_background(pipe: int | Path, content: bytes) -> None:
    def write() -> None:
        with suppress(BrokenPipeError), open(pipe, "wb") as stream:  # noqa: PTH123 - it may be a descriptor
            stream.write(content)

    threading.Thread(target=write, daemon=True).start()


class EndlessFeed:
    """A frame every 5 ms, or after `until` frames none and no end."""

    frame_rate, format, damaged_packets = Fraction(200), PLAIN, 0

    def __init__(self, until: float = float("inf")) -> None:
        self._until = until

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        for index in count():
            if index >= self._until:
                threading.Event().wait(60)
            time.sleep(0.005)
            yield partial(make_image, *SIZE, seed=index)

    def close(self) -> None: ...


def open_live(folder: Path, stack: ExitStack) -> Source:
    return LiveSource("endless", EndlessFeed, WATCH)


def open_camera(folder: Path, stack: ExitStack) -> Source:
    """A recording in place of the camera, which is connected again at its end."""
    write_clip(folder / "clip.mp4")
    open_capture = partial(cv2.VideoCapture, str(folder / "clip.mp4"))
    return LiveSource("camera 0", lambda: CameraFeed(0, open_capture=lambda _: open_capture()), WATCH)


SOURCES = {
    "mp4": open_video,
    "mkv": partial(open_video, suffix=".mkv"),
    "decoded by GStreamer": partial(open_video, decoder="gstreamer:avdec_h264"),
    "images": open_images,
    "image": partial(open_images, number=1),
    "fifo": open_fifo,
    "y4m on standard input": open_stdin,
    "raw on standard input": partial(open_stdin, raw=RawFrames(SIZE, Fraction(25))),
    "live": open_live,
    "camera": open_camera,
}
UNREADABLE: dict[str, tuple[Callable[[Path], object], type[DeblurError]]] = {
    "missing": (lambda folder: open_source(str(folder / "missing.mp4")), InputError),
    "junk video": (lambda folder: open_source(write_junk(folder / "junk.mp4")), InputError),
    "junk image": (lambda folder: list(open_source(write_junk(folder / "junk.png"))), InputError),
    "no images": (lambda folder: open_source(str(folder)), InputError),
    "no camera": (lambda folder: open_source("97"), SourceLostError),
    "no server": (lambda folder: open_source(f"rtsp://127.0.0.1:{free_port()}/live"), SourceLostError),
}


def write_junk(path: Path) -> str:
    path.write_bytes(b"junk" * 99)
    return str(path)


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    with ExitStack() as stack:
        source = SOURCES[request.param](tmp_path, stack)
        stack.callback(source.close)
        yield source


def read_frames(source: Source) -> list[Frame]:
    """Read all frames of a file, or ten of a live source, in another thread than the one that opened it."""
    frames: list[Frame] = []
    limit = FRAMES if source.info.is_live else None
    reader = threading.Thread(target=lambda: frames.extend(islice(source, limit)))
    reader.start()
    reader.join(30)
    assert not reader.is_alive()
    return frames


def test_facts_are_known_before_the_first_frame(source: Source) -> None:
    info = source.info
    assert info.name
    assert "\n" not in info.name
    assert isinstance(info.time_base, Fraction)
    assert isinstance(info.frame_rate, Fraction)
    assert 0 < info.time_base < 1 <= info.frame_rate
    assert (source.dropped == 0 or info.is_live, source.damage, source.warnings) == (True, None, [])
    frames = read_frames(source)
    assert source.info == info
    assert len(frames) == (info.frame_count if info.frame_count == 1 else FRAMES)
    assert info.size in {None, frames[0].size}
    assert info.frame_count is None or info.frame_count >= len(frames)  # sound may be longer than the frames
    assert info.is_live or (source.dropped, source.reconnects, source.damage) == (0, 0, None)


def test_frames_are_bgr_with_increasing_time_stamps(source: Source) -> None:
    started_at = time.perf_counter()
    frames = read_frames(source)
    copies = [frame.pixels.copy() for frame in frames]
    assert all(frame.time_base == source.info.time_base for frame in frames)
    assert all(earlier.pts < later.pts for earlier, later in pairwise(frames))
    for index, frame in enumerate(frames):
        assert (frame.pixels.dtype, frame.pixels.shape) == (np.uint8, (SIZE[1], SIZE[0], 3))
        assert frame.pixels.flags.c_contiguous
        assert (started_at if not source.info.is_live else 0) <= frame.captured_at <= time.perf_counter()
        if not source.info.is_live:
            assert np.abs(frame.pixels.astype(int) - make_image(*SIZE, seed=index)).mean() < 6
    source.close()
    assert all(np.array_equal(frame.pixels, copy) for frame, copy in zip(frames, copies, strict=True))


def test_warnings_are_sentences_of_one_line(source: Source) -> None:
    read_frames(source)
    assert isinstance(source.warnings, list)
    assert all(isinstance(warning, str) and warning and "\n" not in warning for warning in source.warnings)


@pytest.mark.parametrize("frames_before", [0, 1])
def test_close_twice_is_safe(source: Source, frames_before: int) -> None:
    list(islice(source, frames_before))
    source.close()
    source.close()


def test_closing_a_live_source_ends_an_iteration_that_waits() -> None:
    source = LiveSource("silent", lambda: EndlessFeed(until=1), Watch(timeout_s=60))
    reader = threading.Thread(target=lambda: list(source))
    reader.start()
    time.sleep(0.2)
    source.close()
    reader.join(10)
    assert not reader.is_alive()


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_source_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    read, error = UNREADABLE[name]
    with pytest.raises(error) as refusal:
        read(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_source_that_cannot_be_decoded_leaves_no_file_open(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(InputError):
        VideoSource(Path(write_junk(tmp_path / "junk.mp4")))
    assert set(Path("/proc/self/fd").iterdir()) <= before
