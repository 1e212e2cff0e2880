"""Frames through pipes and into segments, in the formats that other programs read and write."""

from __future__ import annotations

import io
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from runtime.colour import ColourTags, bgr_from_video_frame
from runtime.frame import Frame
from runtime.sinks.pipe import PipeSink
from runtime.sources import open_source
from runtime.sources.base import SourceInfo
from runtime.video import main
from runtime.yuv420 import Yuv420
from tests.conftest import ROOT, make_image, write_clip, write_engine

COMMAND = [sys.executable, "-m", "runtime.video", "--guard", "off", "--provider", "cpu", "--threads", "1"]


def run(*arguments: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, input=stdin, capture_output=True, check=False)


def test_y4m_is_written_and_read_again(clip: Path, invert: Path, tmp_path: Path) -> None:
    out = run("--engine", invert, "--source", clip, "--out", "-")
    assert out.returncode == 0
    assert out.stdout.startswith(b"YUV4MPEG2 W64 H48 F25:1 ")
    assert out.stdout.count(b"FRAME\n") == 10
    again = run("--engine", invert, "--source", "-", "--out", tmp_path / "again.mp4", stdin=out.stdout)
    assert again.returncode == 0, again.stderr
    pairs = list(zip(open_source(str(tmp_path / "again.mp4")), open_source(str(clip)), strict=True))
    assert len(pairs) == 10
    for twice, once in pairs:
        assert np.abs(twice.pixels.astype(int) - once.pixels).mean() < 8  # small colourful frames, twice 4:2:0


def test_planes_go_through_y4m_without_a_conversion(clip: Path, tmp_path: Path) -> None:
    """Out of one run and into another: the codes are those of the decoder, inverted once and twice."""
    engine = write_engine(tmp_path / "invert_yuv420.onnx", shape=("n", "rows", "w"))
    out = run("--engine", engine, "--source", clip, "--out", "-")
    assert b"pixels  4:2:0, as decoded" in out.stderr
    again = run("--engine", engine, "--source", "-", "--out", "-", stdin=out.stdout)
    assert b"pixels  4:2:0, as decoded" in again.stderr
    with av.open(str(clip)) as container:
        planes = [frame.to_ndarray() for frame in container.decode(video=0)]
    for content, expected in ((out.stdout, [255 - frame for frame in planes]), (again.stdout, planes)):
        _, *frames = content.split(b"FRAME\n")
        assert [np.frombuffer(frame, np.uint8).reshape(72, 64).tolist() for frame in frames] == [
            frame.tolist() for frame in expected
        ]


@pytest.mark.parametrize("colour", [ColourTags(matrix=1), ColourTags(matrix=6, is_full_range=True)])
def test_planes_that_y4m_cannot_describe_are_converted(colour: ColourTags) -> None:
    image = Yuv420.from_bgr(np.full((48, 64, 3), (40, 90, 200), np.uint8), colour)
    info = SourceInfo(name="", time_base=Fraction(1, 25), frame_rate=Fraction(25))
    stream = io.BytesIO()
    sink = PipeSink(info, kind="y4m", stream=stream)
    sink.write(Frame(pixels=image, pts=0, time_base=Fraction(1, 25), captured_at=0.0))
    with av.open(io.BytesIO(stream.getvalue())) as container:
        frame = next(container.decode(video=0))
    assert np.abs(bgr_from_video_frame(frame).astype(int) - (40, 90, 200)).max() <= 2


def test_odd_sizes_keep_every_pixel(invert: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "odd.png"), make_image(33, 21))
    out = run("--engine", invert, "--source", tmp_path / "odd.png", "--out", "-")
    header, _, frame = out.stdout.partition(b"FRAME\n")
    assert b" C444 " in header
    assert len(frame) == 3 * 33 * 21


def test_raw_is_bgr(clip: Path, invert: Path) -> None:
    out = run("--engine", invert, "--source", clip, "--out", "-", "--pipe", "raw")
    frames = np.frombuffer(out.stdout, np.uint8).reshape(10, 48, 64, 3)
    for frame, source in zip(frames, open_source(str(clip)), strict=True):
        assert np.array_equal(frame, 255 - source.pixels)


def test_a_reader_that_closes_the_pipe(clip: Path, invert: Path) -> None:
    arguments = ["--engine", str(invert), "--source", str(clip), "--out", "-"]
    child = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout
    assert child.stderr
    child.stdout.close()
    with child.stderr:
        shown = child.stderr.read().decode()
    assert child.wait(20) == 6
    assert "error: reader has closed the output: standard output" in shown
    assert "Traceback" not in shown


def test_junk_on_standard_input(invert: Path) -> None:
    for junk in (b"", b"junk" * 99):
        out = run("--engine", invert, "--source", "-", "--out", "null", stdin=junk)
        assert out.returncode == 3
        assert out.stderr.decode().startswith("engine") or b"error: " in out.stderr


def test_segments(invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "long.mp4", pts=[512 * index for index in range(60)], audio="aac")  # 2.4 s
    arguments = ["--engine", invert, "--source", tmp_path / "long.mp4", "--out", tmp_path / "day.mp4"]
    options = ["--segment-s", "1", "--guard", "off", "--provider", "cpu"]
    assert main([*map(str, arguments), *options]) == 0
    names = [f"day_0000{number}.mp4" for number in (1, 2, 3)]
    assert sorted(path.name for path in tmp_path.glob("day*")) == names
    parts = [list(open_source(str(tmp_path / name))) for name in names]
    assert [len(part) for part in parts] == [25, 25, 10]
    assert all(part[0].pts == 0 for part in parts)
    restored = [frame for part in parts for frame in part]
    for frame, source in zip(restored, open_source(str(tmp_path / "long.mp4")), strict=True):
        assert np.abs(frame.pixels.astype(int) - (255 - source.pixels.astype(int))).mean() < 8
    assert "warning: sound is left out of segments" in capsys.readouterr().err
    assert main([*map(str, arguments), *options]) == 0
    assert len(list(tmp_path.glob("day_*.mp4"))) == 6  # existing files are not replaced
    left = tmp_path / "day_00007.partial.mp4"
    left.write_bytes(b"what a killed run left")
    assert main([*map(str, arguments), *options]) == 0
    assert left.read_bytes() == b"what a killed run left"
    assert (tmp_path / "day_00010.mp4").exists()


def test_raw_frames_in(clip: Path, invert: Path, tmp_path: Path) -> None:
    frames = [frame.pixels for frame in open_source(str(clip))]
    sent = b"".join(frame.tobytes() for frame in frames)
    options = ["--engine", invert, "--source", "-", "--raw", "64x48@30000/1001", "--out", "-", "--pipe", "raw"]
    received = np.frombuffer(run(*options, stdin=sent).stdout, np.uint8).reshape(10, 48, 64, 3)
    assert all(np.array_equal(pixels, 255 - frame) for pixels, frame in zip(received, frames, strict=True))
    options[options.index("-", 5)] = tmp_path / "a.mp4"
    assert run(*options, stdin=sent[:-100]).returncode == 3  # cut off: the incomplete frame is left out
    assert [frame.pts_seconds for frame in open_source(str(tmp_path / "a.mp4"))] == pytest.approx(
        [index * 1001 / 30000 for index in range(9)], abs=1e-4
    )


def test_an_mp4_with_its_index_at_the_end_cannot_be_piped(clip: Path, invert: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.mp4"
    write_clip(late, size=(320, 240), pts=[512 * index for index in range(60)], options={"movflags": "-faststart"})
    assert late.read_bytes().index(b"moov") > late.read_bytes().index(b"mdat")
    run_late = run("--engine", invert, "--source", "-", "--out", "null", stdin=late.read_bytes())
    assert run_late.returncode == 3
    assert run_late.stderr.decode() == (
        "error: index of the video is at its end, and a pipe cannot go back to the frames: -; give the file by its "
        "name, or move the index first: ffmpeg -i IN -c copy -movflags +faststart OUT\n"
    )
    early = tmp_path / "early.mp4"
    write_clip(early, size=(320, 240), pts=[512 * index for index in range(60)], options={"movflags": "faststart"})
    assert run("--engine", invert, "--source", "-", "--out", "null", stdin=early.read_bytes()).returncode == 0
    content = early.read_bytes()
    damaged = content[: content.index(b"mdat") + 4].ljust(len(content), b"\0")
    run_damaged = run("--engine", invert, "--source", "-", "--out", "null", stdin=damaged)
    assert run_damaged.returncode == 3
    assert b"not a video that can be decoded" in run_damaged.stderr
