"""High dynamic range: metadata of the display and the light reach the output, and nothing is lost without a word."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import pytest

from runtime.colour import ColourTags
from runtime.hdr_metadata import NO_METADATA, HdrMetadata, MasteringDisplay
from runtime.sinks.hdr_options import add_hdr_options, hdr_warnings
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import SHARED
from tests.rig.hdr import DISPLAY, DISPLAY_STEPS, METADATA, add_boxes, write_hdr


def read(path: Path) -> HdrMetadata:
    """Return the metadata of the first frame, which begins a group."""
    with av.open(str(path)) as container:
        return HdrMetadata.read(next(container.decode(video=0)))


def mastering(*values: int, colours: int = 1, luminance: int = 1) -> bytes:
    """Return FFmpeg's structure of fractions with the denominator 10,000, or of a whole one."""
    return struct.pack("=22i", *(part for value in values for part in (value, 10_000)), colours, luminance)


WHOLE = (6800, 3200, 2650, 6900, 1500, 600, 3127, 3290, 50, 10_000_000)


def test_the_structures_of_ffmpeg_are_read() -> None:
    display = MasteringDisplay.parse(mastering(*WHOLE))
    assert display
    assert display.red == (Fraction(68, 100), Fraction(32, 100))
    assert display.green == (Fraction(265, 1000), Fraction(69, 100))
    assert display.white == (Fraction(3127, 10_000), Fraction(329, 1000))
    assert (display.min_luminance, display.max_luminance) == (Fraction(1, 200), 1000)


@pytest.mark.parametrize(
    "content",
    [
        mastering(*WHOLE, colours=0),
        mastering(*WHOLE, luminance=0),
        mastering(-1, *WHOLE[1:]),
        mastering(10_001, *WHOLE[1:]),
        mastering(*WHOLE[:9], 50),
        mastering(*WHOLE[:9], 2**31 - 1),
        bytes(80) + struct.pack("=2i", 1, 1),
    ],
    ids=["no colours", "no luminance", "negative", "above 1", "as bright as dark", "too bright", "divided by zero"],
)
def test_values_that_no_encoder_takes_are_left_out(content: bytes) -> None:
    assert MasteringDisplay.parse(content) is None


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1"])
@pytest.mark.parametrize(
    "metadata", [METADATA, HdrMetadata(light=(1000, 0)), HdrMetadata(display=DISPLAY), NO_METADATA]
)
def test_encoders_write_what_is_read_again(encoder: str, metadata: HdrMetadata, tmp_path: Path) -> None:
    write_hdr(tmp_path / "clip.mp4", encoder, metadata)
    found = read(tmp_path / "clip.mp4")
    assert found.light == metadata.light
    assert (found.display is None) == (metadata.display is None)
    if found.display and metadata.display:
        for name in ("green", "blue", "red", "white"):
            assert getattr(found.display, name) == pytest.approx(getattr(metadata.display, name), abs=2e-5)
        assert found.display.max_luminance == metadata.display.max_luminance
        assert found.display.min_luminance == pytest.approx(metadata.display.min_luminance, abs=1e-4)


def test_parameters_are_added_to_those_that_are_there() -> None:
    options = {"crf": "18", "x264-params": "mbtree=0"}
    expected = {"crf": "18", "x264-params": f"mbtree=0:mastering-display={DISPLAY_STEPS}:cll=1000,400"}
    assert add_hdr_options("libx264", options, METADATA) == expected
    assert add_hdr_options("libx264", options, NO_METADATA) == options
    assert add_hdr_options("h264_nvenc", {"cq": "19"}, METADATA) == {"cq": "19"}


def test_what_an_encoder_does_not_take_is_named() -> None:
    assert hdr_warnings("libx265", METADATA) == []
    assert hdr_warnings("h264_nvenc", NO_METADATA) == []
    assert hdr_warnings("h264_nvenc", METADATA) == ["HDR metadata left out: mastering display, light level"]
    dolby = HdrMetadata(light=(1, 1), of_each_frame=("Dolby Vision",))
    assert hdr_warnings("libx265", dolby) == ["HDR metadata left out: Dolby Vision"]


def run(source: Path, out: str, engine: Path, *extra: str) -> int:
    command = ["--source", source, "--out", out, "--engine", engine, "--guard", "off", "--provider", "cpu", *extra]
    return main([str(word) for word in command])


@pytest.mark.parametrize("source_encoder", ["libx265", "libsvtav1"])
def test_a_video_keeps_its_metadata(source_encoder: str, invert: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.mp4", tmp_path / "out.mkv"
    write_hdr(source, source_encoder)
    assert run(source, str(out), invert) == 0
    found = read(out)
    assert found.light == (1000, 400)
    assert found.display
    assert found.display.white == pytest.approx(DISPLAY.white, abs=2e-5)


@pytest.mark.parametrize("encoder", ["libx265", "libsvtav1"])
def test_metadata_of_the_header_of_a_file_are_kept(encoder: str, invert: Path, tmp_path: Path) -> None:
    """Encoders may leave them to the container, as those of VP9 do."""
    source, out = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_hdr(source, encoder, NO_METADATA)
    assert read(source) == NO_METADATA
    add_boxes(source)
    assert read(source) == METADATA
    assert run(source, str(out), invert, "--codec", "hevc") == 0
    assert read(out) == METADATA


@pytest.mark.needs_shared_data
def test_dolby_vision_and_its_loss(invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = SHARED / "odd" / "video" / "am_dolbyVision-hdr.MOV"
    assert run(source, str(tmp_path / "out.mov"), invert) == 0
    lines = capsys.readouterr().err
    assert "HDR (HLG), which the network sees as it is coded" in lines
    assert "warning: HDR metadata left out: Dolby Vision" in lines
    with av.open(str(tmp_path / "out.mov")) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == "yuv420p10le"
    assert ColourTags.read(frame) == ColourTags(primaries=9, transfer=18, matrix=9)


def test_a_run_that_shows_or_writes_bgr_says_that_it_looks_pale(
    invert: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_hdr(tmp_path / "in.mp4", "libx265", NO_METADATA, transfer=18)
    pale = "have the values of HDR (HLG) without its tags: they look pale as they are"
    assert run(tmp_path / "in.mp4", str(tmp_path / "out.mp4"), invert, "--serve", "0") == 0
    assert f"warning: frames on the page {pale}" in capfd.readouterr().err
    assert run(tmp_path / "in.mp4", "-", invert, "--pipe", "raw") == 0
    assert f"warning: frames on standard output {pale}" in capfd.readouterr().err


def test_standard_range_needs_no_words(clip: Path) -> None:
    form = open_source(str(clip)).info.format
    assert form.tag_warnings("images") == form.depth_warnings() == form.warnings == []
