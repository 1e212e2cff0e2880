"""Outputs keep what a source states about its frames: shape of the pixels, colours, fields, further tracks and tags."""

from __future__ import annotations

import io
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
from onnx import helper

from runtime.colour import BT709, ColourTags
from runtime.sinks.publisher import Target, publish
from runtime.sources import open_source
from runtime.sources.deinterlace import Interlacing
from runtime.sources.network import NetworkFeed
from runtime.sources.video import VideoSource
from runtime.video import main
from tests.conftest import write_clip, write_engine
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
    suffix: str, options: tuple[str, ...], anamorphic: Path, invert_in_form: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out{suffix}"
    assert run(anamorphic, out, invert_in_form, *options) == 0
    assert ratio_of(out) == (Fraction(64, 45), Fraction(64, 45))
    assert (b"pasp" in out.read_bytes()) == (suffix != ".mkv")  # PyAV cannot set Matroska's display size


def test_segments_keep_the_shape_of_pixels(anamorphic: Path, invert_in_form: Path, tmp_path: Path) -> None:
    assert run(anamorphic, tmp_path / "out.mp4", invert_in_form, "--segment-s", 0.5) == 0
    assert {ratio_of(path)[0] for path in tmp_path.iterdir()} == {Fraction(64, 45)}


def test_a_rotated_source_has_pixels_of_the_inverse_shape(
    anamorphic: Path, invert_in_form: Path, tmp_path: Path
) -> None:
    rotated = tmp_path / "rotated.mp4"
    ffmpeg("-i", anamorphic, "-c", "copy", "-metadata:s:v", "rotate=90", rotated)
    assert open_source(str(rotated)).info.size == (64, 96)
    assert run(rotated, tmp_path / "out.mp4", invert_in_form) == 0
    assert ratio_of(tmp_path / "out.mp4")[0] == Fraction(45, 64)


def test_y4m_keeps_the_shape_of_pixels(
    anamorphic: Path, invert_in_form: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(anamorphic, "-", invert_in_form) == 0
    assert b" A64:45 " in capfdbinary.readouterr().out.partition(b"\n")[0]


def test_a_published_stream_keeps_the_shape_of_pixels(tmp_path: Path) -> None:
    target = Target(
        url=str(tmp_path / "out.flv"),
        format="flv",
        width=96,
        height=64,
        frames_per_second=10,
        sample_aspect_ratio=float(Fraction(64, 45)),
        colour=BT709,
    )
    publish(target, io.BytesIO(bytes(8) + bytes(96 * 64 * 3 // 2)), io.BytesIO())
    assert ratio_of(tmp_path / "out.flv")[0] == Fraction(64, 45)


def test_an_unstated_shape_is_square(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    assert open_source(str(tmp_path / "clip.mp4")).info.format.sample_aspect_ratio == 1


REFUSED = "stored as 10-bit H.264, which many hardware players refuse; more of them play HEVC"
PQ = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv")
HLG = ("-color_primaries", "bt2020", "-color_trc", "arib-std-b67", "-colorspace", "bt2020nc", "-color_range", "tv")
PAL = ("-color_primaries", "bt470bg", "-color_trc", "gamma28", "-colorspace", "bt470bg", "-color_range", "tv")
FULL = ("-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "pc")


def tags_of(path: Path) -> ColourTags:
    with av.open(str(path)) as container:
        return ColourTags.read(next(container.decode(video=0)))


@pytest.mark.parametrize(
    ("tags", "pixel_format", "expected"),
    [
        (PQ, "yuv420p10le", ColourTags(primaries=9, transfer=16, matrix=9)),
        (HLG, "yuv420p10le", ColourTags(primaries=9, transfer=18, matrix=9)),
        (PAL, "yuv420p", ColourTags(primaries=5, transfer=5, matrix=5)),
        (FULL, "yuv420p", ColourTags(is_full_range=True)),
        ((), "yuv420p", BT709),
        (("-colorspace", "ycgco"), "yuv444p", ColourTags(matrix=8)),
    ],
    ids=["pq", "hlg", "pal", "full", "unstated", "ycgco"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_colours_keep_their_tags_and_their_values(
    suffix: str, tags: tuple[str, ...], pixel_format: str, expected: ColourTags, tmp_path: Path
) -> None:
    source, out = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    make_clip(source, *tags, "-crf", 1, "-pix_fmt", pixel_format, frames=2)
    identity = write_engine(tmp_path / "identity.onnx", nodes=[helper.make_node("Identity", ["x0"], ["y"])])
    assert run(source, out, identity) == 0
    assert tags_of(out) == expected
    for before, after in zip(luma_of(source), luma_of(out), strict=True):
        assert np.abs(before - after).mean() < (20 if tags == () else 2)  # unstated, 64 lines: BT.601 becomes BT.709


def luma_of(path: Path) -> list[np.ndarray]:
    """Return the stored luma of each frame, scaled to 8 bits."""
    planes = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            deep = frame.format.components[0].bits > 8
            luma = np.frombuffer(frame.planes[0], np.uint16 if deep else np.uint8).reshape(frame.height, -1)
            planes.append(luma[:, : frame.width] / (4 if deep else 1))
    return planes


@pytest.mark.parametrize(
    ("tags", "pixel_format", "size", "expected"),
    [
        (PQ, "yuv420p10le", "96x64", [REFUSED]),
        ((), "yuv422p10le", "96x64", ["chroma was reduced from 4:2:2 to 4:2:0", REFUSED]),
        (
            PQ,
            "yuv444p10le",
            "97x63",
            [
                "10-bit HDR (PQ) frames were reduced to 8 bits",
                "97x63 is odd: stored as H.264 4:4:4, which some hardware players refuse",
            ],
        ),
        ((), "yuv444p", "96x64", ["chroma was reduced from 4:4:4 to 4:2:0"]),
        ((), "yuv420p", "96x64", []),
        ((), "yuv444p", "97x63", ["97x63 is odd: stored as H.264 4:4:4, which some hardware players refuse"]),
        ((), "gray", "96x64", []),
    ],
    ids=["pq", "422", "pq-odd", "444", "420", "odd", "gray"],
)
def test_what_samples_and_chroma_lose_is_said_once(
    tags: tuple[str, ...],
    pixel_format: str,
    size: str,
    expected: list[str],
    invert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = make_clip(tmp_path / "in.mkv", *tags, "-pix_fmt", pixel_format, filters=f"scale={size.replace('x', ':')}")
    assert run(source, tmp_path / "out.mp4", invert) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")] == expected


def test_a_published_stream_keeps_colour_tags(tmp_path: Path) -> None:
    hlg = ColourTags(primaries=9, transfer=18, matrix=9)
    target = Target(
        url=str(tmp_path / "out.flv"),
        format="flv",
        width=96,
        height=64,
        frames_per_second=10,
        sample_aspect_ratio=1,
        colour=hlg,
    )
    publish(target, io.BytesIO(bytes(8) + bytes(96 * 64 * 3 // 2)), io.BytesIO())
    assert tags_of(tmp_path / "out.flv") == hlg


INTERLACED = "scroll=h=0.1,tinterlace=interleave_top,fieldorder=tff,format=yuv420p"
"""Filters that make interlaced frames of progressive ones: half as many."""


@pytest.fixture(scope="module")
def interlaced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interlaced") / "dvd.ts"
    return make_clip(path, "-flags", "+ilme+ildct", "-b:v", "4M", filters=INTERLACED, codec="mpeg2video", frames=40)


def combing(pixels: np.ndarray) -> float:
    """Return how much neighbouring lines differ, relative to lines of the same field: above 1 for woven fields."""
    lines = pixels.astype(float)
    return float(np.abs(lines[1:] - lines[:-1]).mean() / np.abs(lines[2:] - lines[:-2]).mean())


def test_interlaced_video_is_deinterlaced(
    interlaced: Path, invert_in_form: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(interlaced, tmp_path / "auto.mp4", invert_in_form) == 0
    assert capsys.readouterr().err.count("is interlaced and is deinterlaced") == 1
    assert run(interlaced, tmp_path / "off.mp4", invert_in_form, "--deinterlace", "off") == 0
    assert capsys.readouterr().err.count("is interlaced and keeps its fields") == 1
    auto, kept = list(open_source(str(tmp_path / "auto.mp4"))), list(open_source(str(tmp_path / "off.mp4")))
    assert [frame.pts_seconds for frame in auto] == [frame.pts_seconds for frame in kept]
    assert len(auto) == 20
    assert combing(kept[10].pixels) > 1.5 * combing(auto[10].pixels)


def test_progressive_video_is_left_alone(tmp_path: Path) -> None:
    lines: list[str] = []
    path = make_clip(tmp_path / "clip.mp4")
    frames = [frame.pixels for frame in open_source(str(path), say=lines.append)]
    unfiltered = [frame.pixels for frame in open_source(str(path), deinterlace="off")]
    assert all(map(np.array_equal, frames, unfiltered))
    assert lines == []


def test_a_resumed_job_deinterlaces_as_an_undisturbed_one(interlaced: Path) -> None:
    whole = list(open_source(str(interlaced)))
    source = open_source(str(interlaced))
    assert isinstance(source, VideoSource)
    source.skip(7)
    resumed = list(source)
    assert [frame.pts for frame in resumed] == [frame.pts for frame in whole[7:]]
    assert all(np.array_equal(one.pixels, other.pixels) for one, other in zip(resumed, whole[7:], strict=True))


def test_a_stream_is_deinterlaced_also_after_a_reconnection(interlaced: Path) -> None:
    lines: list[str] = []
    interlacing = Interlacing("auto", lines.append)
    for _ in range(2):
        feed = NetworkFeed(f"file:{interlaced}", interlacing=interlacing)
        frames = [pixels() for pixels in feed]
        feed.close()
        assert 18 <= len(frames) <= 20
        assert combing(frames[10]) < 0.9
    assert len(lines) == 1


def test_frames_that_change_size_or_interlacing(interlaced: Path) -> None:
    """Progressive, interlaced, of another size, progressive again: each frame comes once, with its own time."""
    with av.open(str(interlaced)) as container:
        woven = list(islice(container.decode(video=0), 6))
    plain = [av.VideoFrame(96, 64, "yuv420p") for _ in range(3)]
    small = [frame.reformat(width=48, height=32) for frame in woven[3:]]
    frames = [plain[0], *woven[:3], plain[1], *small, plain[2]]
    for index, frame in enumerate(frames):
        frame.pts, frame.time_base = index if index != 2 else None, Fraction(1, 5)
    stamps = [frame.pts for frame in frames]
    sizes = [frame.width for frame in frames]
    made = list(Interlacing().apply(frames))
    assert [frame.pts for frame in made] == stamps
    assert [frame.width for frame in made] == sizes
