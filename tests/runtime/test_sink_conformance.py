"""Conformance suite of sinks: the contract of `runtime/sinks/base.py`, checked for every kind of sink.

A new sink adds one line to `SINKS`, and one to `UNWRITABLE` if there are outputs that it cannot write.
"""

from __future__ import annotations

import dataclasses
import io
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from runtime.errors import OutputError
from runtime.frame import Frame
from runtime.sinks import EncoderSettings, Sink, Tee, open_sink
from runtime.sinks.pipe import PipeSink
from runtime.sources.base import SourceInfo
from tests.conftest import ROOT, make_image
from tests.rig import free_port

INFO = SourceInfo(name="test", time_base=Fraction(1, 25), frame_rate=Fraction(25))
JUNK = b"earlier output"


@dataclasses.dataclass(frozen=True)
class Case:
    """A sink that writes into an empty folder."""

    open: Callable[[Path], Sink]
    final: tuple[str, ...]
    """Patterns of the files under their final names."""
    frames: int = 4
    """Number of frames to write."""
    is_atomic: bool = False
    """Whether the frames are in one file, which appears under its final name when it is complete."""


def open_named(name: str, **options: object) -> Callable[[Path], Sink]:
    return lambda folder: open_sink(name if name == "null" else f"{folder}/{name}", INFO, **options)


class AppendToFile(io.RawIOBase):
    """A stream in place of standard output that keeps no descriptor open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, data: bytes) -> int:
        with self._path.open("ab") as file:
            return file.write(data)


def open_pipe(folder: Path) -> Sink:
    return PipeSink(INFO, kind="y4m", stream=AppendToFile(folder / "pipe.y4m"))


def open_single(folder: Path) -> Sink:
    return open_sink(str(folder / "out.png"), dataclasses.replace(INFO, frame_count=1))


def open_tee(folder: Path) -> Sink:
    return Tee([open_named("a.mp4")(folder), open_named("null")(folder), open_named("b.mkv")(folder)])


SINKS = {
    "mp4": Case(open_named("out.mp4"), ("out.mp4",), is_atomic=True),
    "mov": Case(open_named("out.mov"), ("out.mov",), is_atomic=True),
    "mkv": Case(open_named("out.mkv"), ("out.mkv",), is_atomic=True),
    "hevc": Case(open_named("out.mp4", encoder=EncoderSettings(codec="hevc")), ("out.mp4",), is_atomic=True),
    "av1": Case(open_named("out.mkv", encoder=EncoderSettings(codec="av1")), ("out.mkv",), is_atomic=True),
    "segments": Case(open_named("out.mp4", segment_s=0.08), ("out_0000?.mp4",)),
    "images": Case(open_named("out/"), ("out/*.png",)),
    "image": Case(open_single, ("out.png",), frames=1),
    "pipe": Case(open_pipe, ("pipe.y4m",)),
    "null": Case(open_named("null"), ()),
    "tee": Case(open_tee, ("a.mp4", "b.mkv"), is_atomic=True),
}
UNWRITABLE = {
    "video": open_named("file/out.mp4"),
    "segments": open_named("file/out.mp4", segment_s=1),
    "images": open_named("file/out/"),
    "image": lambda folder: open_sink(str(folder / "file" / "a.png"), dataclasses.replace(INFO, frame_count=1)),
    "tee": lambda folder: Tee([open_named("file/out.mp4")(folder)]),
    "server": lambda folder: open_sink(f"rtsp://127.0.0.1:{free_port()}/in", INFO),
}


@pytest.fixture(params=SINKS)
def case(request: pytest.FixtureRequest) -> Case:
    return SINKS[request.param]


def frame_at(pts: int, size: tuple[int, int] = (64, 48)) -> Frame:
    return Frame(pixels=make_image(*size, seed=pts), pts=pts, time_base=INFO.time_base, captured_at=0.0)


def write_frames(case: Case, sink: Sink) -> None:
    for index in range(case.frames):
        sink.write(frame_at(index))


def final_files(case: Case, folder: Path) -> list[Path]:
    return sorted(path for pattern in case.final for path in folder.glob(pattern))


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def frames_in(path: Path) -> int:
    if path.suffix == ".png":
        return int(cv2.imread(str(path)) is not None)
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def assert_sentences(warnings: list[str]) -> None:
    assert isinstance(warnings, list)
    assert all(isinstance(warning, str) and warning and "\n" not in warning for warning in warnings)


def test_a_complete_output_is_under_its_final_name(case: Case, tmp_path: Path) -> None:
    sink = case.open(tmp_path)
    assert sink.warnings == []
    write_frames(case, sink)
    place = sink.close(complete=True)
    files = final_files(case, tmp_path)
    assert files_in(tmp_path) == set(files)
    assert bool(place) == bool(case.final)
    assert sum(map(frames_in, files)) == case.frames * (len(files) if case.is_atomic else bool(files))
    if case.is_atomic:
        assert place == ", ".join(map(str, files))
    assert sink.warnings == []


def test_an_unfinished_output_is_under_another_name_and_plays(case: Case, tmp_path: Path) -> None:
    if case.is_atomic:
        for name in case.final:
            (tmp_path / name).write_bytes(JUNK)
    sink = case.open(tmp_path)
    write_frames(case, sink)
    place = sink.close(complete=False)
    if case.is_atomic:
        assert all(path.read_bytes() == JUNK for path in final_files(case, tmp_path))
        unfinished = sorted(files_in(tmp_path) - set(final_files(case, tmp_path)))
        assert place == ", ".join(map(str, unfinished))
        assert all(path.suffixes[0] == ".partial" for path in unfinished)
        assert [frames_in(path) for path in unfinished] == [case.frames] * len(case.final)
    assert all(frames_in(path) for path in files_in(tmp_path) if path.read_bytes() != JUNK)


@pytest.mark.parametrize("complete", [True, False])
def test_close_twice_is_safe(case: Case, complete: bool, tmp_path: Path) -> None:
    sink = case.open(tmp_path)
    write_frames(case, sink)
    place = sink.close(complete=complete)
    before = files_in(tmp_path)
    assert sink.close(complete=True) == place
    assert sink.close(complete=False) == place
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("complete", [True, False])
def test_no_file_is_left_without_frames(case: Case, complete: bool, tmp_path: Path) -> None:
    assert case.open(tmp_path).close(complete=complete) is None
    assert files_in(tmp_path) == set()


def test_frames_may_change_size_and_are_not_changed(case: Case, tmp_path: Path) -> None:
    sink = case.open(tmp_path)
    frames = [frame_at(0), frame_at(1, (96, 72)), frame_at(2, (32, 24))][: case.frames]
    copies = [frame.pixels.copy() for frame in frames]
    for frame in frames:
        sink.write(frame)
    sink.close(complete=True)
    assert all(np.array_equal(frame.pixels, copy) for frame, copy in zip(frames, copies, strict=True))
    assert_sentences(sink.warnings)
    assert sum(map(frames_in, final_files(case, tmp_path))) == len(frames) * (len(case.final) if case.final else 0)


@pytest.mark.parametrize("name", UNWRITABLE)
def test_an_output_that_cannot_be_written_is_an_output_error(name: str, tmp_path: Path) -> None:
    """The constructor or the first write raises, in one line, and closing afterwards is safe."""
    (tmp_path / "file").touch()
    sink = None
    with pytest.raises(OutputError, match="cannot") as refusal:
        sink = UNWRITABLE[name](tmp_path)
        sink.write(frame_at(0))
    assert "\n" not in str(refusal.value)
    assert sink is None or sink.close(complete=False) is None
    assert files_in(tmp_path) == {tmp_path / "file"}


def test_a_pipe_without_a_reader_is_an_output_error() -> None:
    """The sink runs in another process, because it replaces descriptor 1 after the failure."""
    code = "from tests.runtime.test_sink_conformance import *; PipeSink(INFO, kind='raw').write(frame_at(0))"
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-c", code]
    child = subprocess.run(command, cwd=ROOT, stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert b"OutputError: reader has closed the output: standard output" in child.stderr
