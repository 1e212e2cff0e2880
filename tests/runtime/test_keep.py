"""Outputs keep what a source states about its frames: shape of the pixels, colours, fields, further tracks and tags."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import pytest

from runtime.sinks.publisher import Target, publish
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import make_image, write_clip
from tests.rig.media import ffmpeg, make_clip


def run(source: Path, out: Path | str, engine: Path, *options: object) -> int:
    """Restore a file with the command line and return its exit code."""
    command = ["--source", source, "--out", out, "--engine", engine, "--guard", "off", "--provider", "cpu"]
    return main([str(word) for word in (*command, "--threads", 1, *options)])


@pytest.fixture(scope="module")
def anamorphic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "anamorphic.mp4", filters="setsar=64/45")


def ratio_of(path: Path) -> tuple[Fraction | None, Fraction | None]:
    """Return the sample aspect ratio of a file, and that of its H.264 stream alone."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        next(container.decode(stream))
        return stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio


@pytest.mark.parametrize("options", [(), ("--tile", "64x64"), ("--resume",), ("--side-by-side",)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_pixels_keep_their_shape(
    suffix: str, options: tuple[str, ...], anamorphic: Path, invert: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    assert run(anamorphic, out, invert, *options) == 0
    assert ratio_of(out) == (Fraction(64, 45), Fraction(64, 45))
    assert (b"pasp" in out.read_bytes()) == (suffix != ".mkv")  # PyAV cannot set Matroska's display size


def test_segments_keep_the_shape_of_pixels(anamorphic: Path, invert: Path, tmp_path: Path) -> None:
    assert run(anamorphic, tmp_path / "out.mp4", invert, "--segment-s", 0.5) == 0
    assert {ratio_of(path)[0] for path in tmp_path.iterdir()} == {Fraction(64, 45)}


def test_a_rotated_source_has_pixels_of_the_inverse_shape(anamorphic: Path, invert: Path, tmp_path: Path) -> None:
    rotated = tmp_path / "rotated.mp4"
    ffmpeg("-i", anamorphic, "-c", "copy", "-metadata:s:v", "rotate=90", rotated)
    assert open_source(str(rotated)).info.size == (64, 96)
    assert run(rotated, tmp_path / "out.mp4", invert) == 0
    assert ratio_of(tmp_path / "out.mp4")[0] == Fraction(45, 64)


def test_y4m_keeps_the_shape_of_pixels(
    anamorphic: Path, invert: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(anamorphic, "-", invert) == 0
    assert b" A64:45 " in capfdbinary.readouterr().out.partition(b"\n")[0]


def test_a_published_stream_keeps_the_shape_of_pixels(tmp_path: Path) -> None:
    target = Target(
        url=str(tmp_path / "out.flv"),
        format="flv",
        width=96,
        height=64,
        frames_per_second=10,
        sample_aspect_ratio=float(Fraction(64, 45)),
    )
    publish(target, io.BytesIO(bytes(8) + make_image(96, 64).tobytes()), io.BytesIO())
    assert ratio_of(tmp_path / "out.flv")[0] == Fraction(64, 45)


def test_an_unstated_shape_is_square(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    assert open_source(str(tmp_path / "clip.mp4")).info.format.sample_aspect_ratio == 1
