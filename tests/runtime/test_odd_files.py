"""Odd files through the command line: damaged, unreadable, of rare formats."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from runtime.sources import open_source
from runtime.video import main
from tests.conftest import ROOT, Survived, make_image, write_clip, zero_packet
from tests.rig import handles_signal, wait_until
from tests.runtime.test_sources import bad_files

BAD = ["missing.mp4", "zero.mp4", "junk.mp4", "no_moov.mp4", "image.mp4", "junk.png", "sound.mp4", "empty folder"]


def arguments(engine: Path, source: Path, out: object, *more: object) -> list[str]:
    values = ["--engine", engine, f"--source={source}", f"--out={out}", *more]
    return [*map(str, values), "--guard", "off", "--provider", "cpu", "--threads", "1"]


@pytest.mark.fault("Files", "not a video or image", done="missing, empty, junk, no moov box, only sound, empty folder")
@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_input(
    name: str, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], survived: Survived
) -> None:
    path = bad_files(tmp_path)[name]
    assert main(arguments(invert, path, tmp_path / "out.mp4")) == 3
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    (line,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert str(path) in line
    assert not list(tmp_path.glob("out*"))
    survived("refused in one line; nothing is written", code=3)


@pytest.mark.fault("Files", "damage in the middle", done="one of 40 packets is zeroed")
def test_damage_in_the_middle_is_in_the_report(invert: Path, tmp_path: Path, survived: Survived) -> None:
    path, stats = tmp_path / "in.avi", tmp_path / "s.json"
    write_clip(path, codec="mpeg4", size=(320, 240), pts=list(range(40)), time_base=Fraction(1, 25))
    zero_packet(path, 20)
    assert main(arguments(invert, path, tmp_path / "out.mp4", "--stats", stats)) == 0
    values = json.loads(stats.read_text())
    assert "1 damaged packets could not be decoded and were skipped" in values["warnings"]
    written = values["frames"]["written"]
    assert sum(1 for _ in open_source(str(tmp_path / "out.mp4"))) == written >= 35
    survived("skipped and counted in --stats", code=0, lost=40 - written)


def write_palette(path: Path) -> np.ndarray:
    """Write a PNG with a palette, which OpenCV cannot write, and return its colours, uint8[4, 4, 3] BGR."""
    colours = np.random.default_rng(0).integers(0, 256, (16, 3), dtype=np.uint8)
    rows = b"".join(b"\0" + bytes(range(4 * row, 4 * row + 4)) for row in range(4))
    kinds = {b"IHDR": struct.pack(">IIBBBBB", 4, 4, 8, 3, 0, 0, 0), b"PLTE": colours.tobytes()}
    chunks = kinds | {b"IDAT": zlib.compress(rows), b"IEND": b""}
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    return colours.reshape(4, 4, 3)[..., ::-1]


def write_rare(path: Path, kind: str) -> np.ndarray:
    """Write an image of a rare format and return its pixels as its file holds them."""
    if kind == "palette":
        return write_palette(path)
    colour = make_image(1, 1) if kind == "1x1" else make_image(40, 30)
    gray = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    stored = {
        "gray": gray,
        "gray 16 bit": gray.astype(np.uint16) * 257,
        "alpha": cv2.merge([*cv2.split(colour), gray]),
        "16 bit": colour.astype(np.uint16) * 257,
        "1x1": colour,
    }[kind]
    cv2.imwrite(str(path), stored)
    return stored


@pytest.mark.fault("Files", "rare image formats", done="gray, alpha, palette, 16 bit, 1x1")
@pytest.mark.parametrize("kind", ["gray", "gray 16 bit", "alpha", "palette", "16 bit", "1x1"])
def test_rare_image_formats(kind: str, invert: Path, tmp_path: Path, survived: Survived) -> None:
    stored = write_rare(tmp_path / "in.png", kind)
    assert main(arguments(invert, tmp_path / "in.png", tmp_path / "out.png")) == 0
    written = cv2.imread(str(tmp_path / "out.png"), cv2.IMREAD_UNCHANGED)
    expected = np.iinfo(stored.dtype).max - stored
    if kind == "alpha":
        expected[..., 3] = stored[..., 3]
    assert written.dtype == stored.dtype
    assert np.array_equal(written, expected)
    survived("gray, alpha and 16 bits are kept", code=0, lost=0)


@pytest.mark.fault("Files", "limited and full range", done="white as 235 and as 255")
@pytest.mark.parametrize(("pix_fmt", "code"), [("yuv420p", 235), ("yuvj420p", 255)])
def test_limited_and_full_range(pix_fmt: str, code: int, invert: Path, tmp_path: Path, survived: Survived) -> None:
    """The engine inverts: white in either range has to become black."""
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        frame = av.VideoFrame(64, 48, pix_fmt)
        for plane, value in zip(frame.planes, (code, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert main(arguments(invert, tmp_path / "in.mp4", tmp_path / "out.mp4")) == 0
    (restored,) = open_source(str(tmp_path / "out.mp4"))
    assert restored.pixels.max() <= 2
    survived("white stays white in both", code=0, lost=0)


def obeying_permissions(command: list[str]) -> list[str]:
    """Return the command for a user whom file permissions bind; root loses the capability to ignore them."""
    if os.geteuid():
        return command
    if not shutil.which("setpriv"):
        pytest.skip("root ignores permissions, and setpriv is not installed")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]


@pytest.mark.fault("Files", "no permission", done="to read source, device or engine, to write the output")
@pytest.mark.parametrize(
    ("denied", "code"), [("source.mp4", 3), ("device", 5), ("engine.onnx", 4), ("out", 6), ("out/a.mp4", 6)]
)
def test_permission_denied(
    denied: str, code: int, clip: Path, invert: Path, tmp_path: Path, survived: Survived
) -> None:
    shutil.copy(clip, tmp_path / "source.mp4")
    shutil.copy(invert, tmp_path / "engine.onnx")
    (tmp_path / "out").mkdir()
    if denied == "out/a.mp4":
        (tmp_path / "out" / "a.partial.mp4").touch()  # the file that is opened
        (tmp_path / "out" / "a.partial.mp4").chmod(0)
    elif denied == "device":
        try:
            os.mknod(tmp_path / denied, stat.S_IFCHR | 0o000, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root may create a device")
    (tmp_path / denied.replace("a.mp4", "a.partial.mp4")).chmod(0o500 if denied == "out" else 0)
    source = tmp_path / ("device" if denied == "device" else "source.mp4")
    command = arguments(tmp_path / "engine.onnx", source, tmp_path / "out" / "a.mp4", "-y")
    done = subprocess.run(
        obeying_permissions([sys.executable, "-m", "runtime.video", *command]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
    with contextlib.suppress(OSError):
        (tmp_path / "out").chmod(0o700)
    survived(f"{denied}: one line", code=code)


@pytest.mark.fault("Files", "output is a hard link to the input", done="with -y")
def test_a_hard_link_to_the_input(clip: Path, invert: Path, tmp_path: Path, survived: Survived) -> None:
    before = clip.read_bytes()
    out = tmp_path / "link.mp4"
    out.hardlink_to(clip)
    assert main(arguments(invert, clip, out, "-y")) == 0
    assert clip.read_bytes() == before
    assert sum(1 for _ in open_source(str(out))) == 10
    survived("the link is replaced; the input is unchanged", code=0, lost=0)


@pytest.mark.fault("Files", "a pipe without data", done="a FIFO with and without a writer, standard input; Ctrl-C")
@pytest.mark.parametrize("kind", ["no writer", "silent writer", "stdin"])
def test_a_pipe_without_data(kind: str, invert: Path, tmp_path: Path, survived: Survived) -> None:
    fifo = tmp_path / "fifo.mkv"
    os.mkfifo(fifo)
    source = Path("-") if kind == "stdin" else fifo
    command = [sys.executable, "-m", "runtime.video", *arguments(invert, source, "null")]
    child = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdin
    assert child.stderr
    writer = None
    with child.stdin, child.stderr:
        if kind == "silent writer":
            writer = os.open(fifo, os.O_WRONLY)  # waits until the run opens it for reading
        else:
            wait_until(lambda: handles_signal(child, signal.SIGTERM), 60)  # before it opens any file
        time.sleep(1)
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
        shown = child.stderr.read().decode()
    if writer:
        os.close(writer)
    assert "interrupted" in shown
    assert "Traceback" not in shown
    survived("the run ends at once", code=130)
