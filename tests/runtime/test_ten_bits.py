"""Frames of 10 bits: what the network leaves alone stays bit for bit what was decoded, all the way to the encoder."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest
from onnx import helper

from runtime.colour import BT709, ColourTags, bgr_from_video_frame
from runtime.engines import open_engine
from runtime.orientation import Orientation
from runtime.pipeline import Pipeline
from runtime.sinks.conversion import to_video_frame
from runtime.sinks.encoder_settings import Codec, EncoderSettings
from runtime.sinks.pipe import PipeSink
from runtime.sinks.publish import PublishSink
from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.sources.live import LiveSource, Watch
from runtime.sources.network import NetworkFeed
from runtime.sources.planes import PlanesReader
from runtime.sources.video import VideoSource
from runtime.video import main
from runtime.yuv420 import Yuv420, place_beside
from runtime.yuv420p10 import Yuv420p10, has_deep_planes
from tests.conftest import make_image, write_engine
from tests.rig import free_port, wait_until
from tests.rig.hdr import METADATA, write_hdr
from tests.rig.media import ffmpeg

PQ = ColourTags(primaries=9, transfer=16, matrix=9)
REFUSED = "warning: stored as 10-bit H.264, which many hardware players refuse; more of them play HEVC"
PLANES = ("n", "rows", "w")


def make_frame(pixel_format: str = "yuv420p10le", size: tuple[int, int] = (34, 20), seed: int = 0) -> av.VideoFrame:
    """Return a frame of random values of all its bits, whose rows are padded in memory."""
    frame = av.VideoFrame(*size, pixel_format)
    rng = np.random.default_rng(seed)
    shift = 6 if pixel_format == "p010le" else 0
    bits = frame.format.components[0].bits
    for plane in frame.planes:
        words = np.frombuffer(memoryview(plane), np.uint16).reshape(-1, plane.line_size // 2)
        words[:] = rng.integers(0, 2**bits, words.shape) << shift
    PQ.tag(frame)
    return frame


def words_of(frame: av.VideoFrame) -> list[np.ndarray]:
    """Return the planes of a frame in `yuv420p10le`."""
    return [
        np.frombuffer(memoryview(plane), np.uint16).reshape(-1, plane.line_size // 2)[:, : plane.width]
        for plane in frame.planes
    ]


def is_same(first: av.VideoFrame, second: av.VideoFrame) -> bool:
    return all(np.array_equal(*planes) for planes in zip(words_of(first), words_of(second), strict=True))


# Planes


def test_planes_are_the_values_of_the_decoder_and_the_same_rounded() -> None:
    frame = make_frame()
    planes = Yuv420p10.from_video_frame(frame)
    assert planes.size == (34, 20)
    assert planes.colour == PQ
    assert np.array_equal(planes.deep.ravel(), np.concatenate([plane.ravel() for plane in words_of(frame)]))
    assert np.abs(planes.planes * 4.0 - planes.deep).max() <= 3  # 1023 becomes 255
    assert is_same(planes.to_video_frame(), frame)


def test_p010_has_the_same_values_interleaved() -> None:
    frame = make_frame("p010le")
    planes = Yuv420p10.from_video_frame(frame)
    plain = frame.reformat(format="yuv420p10le", threads=1)  # several threads leave some samples out
    assert is_same(planes.to_video_frame(), plain)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270, -90])
def test_rotated_planes_keep_their_bits(rotation: int) -> None:
    upright = Yuv420p10.from_video_frame(make_frame())
    turned = Yuv420p10.from_video_frame(make_frame(), orientation=Orientation(rotation))
    for plane, other in zip(words_of(turned.to_video_frame()), words_of(upright.to_video_frame()), strict=True):
        assert np.array_equal(plane, np.rot90(other, rotation // 90))


@pytest.mark.parametrize(
    ("pixel_format", "is_deep"),
    [
        ("yuv420p10le", True),
        ("p010le", True),
        ("yuv422p10le", True),
        ("yuv444p12le", True),
        ("yuva444p10le", True),
        ("yuv420p", False),
        ("gbrp10le", False),
        ("gray10le", False),
        ("xyz12le", False),
    ],
)
def test_yuv_of_more_than_8_bits_has_10_bit_planes(pixel_format: str, *, is_deep: bool) -> None:
    assert has_deep_planes(av.VideoFrame(34, 20, pixel_format)) == is_deep
    assert not has_deep_planes(av.VideoFrame(35, 20, pixel_format))


@pytest.mark.parametrize("is_full_range", [False, True])
@pytest.mark.parametrize(("pixel_format", "step"), [("yuv422p10le", 1), ("yuv444p10le", 1), ("yuv420p12le", 4)])
def test_other_yuv_keeps_its_luma(pixel_format: str, step: int, *, is_full_range: bool) -> None:
    frame = make_frame(pixel_format)
    ColourTags(is_full_range=is_full_range).tag(frame)
    planes = Yuv420p10.from_video_frame(frame)
    assert planes.colour.is_full_range == is_full_range
    difference = words_of(planes.to_video_frame())[0] - words_of(frame)[0] / step
    assert np.abs(difference).max() < 2  # libswscale dithers


def test_the_change_of_the_network_is_added_to_all_bits() -> None:
    planes = Yuv420p10.from_video_frame(make_frame())
    change = np.random.default_rng(1).integers(-60, 61, planes.planes.shape)
    changed = planes.with_planes(np.clip(planes.planes + change, 0, 255).astype(np.uint8))
    expected = np.clip(planes.deep + 4 * (changed.planes.astype(int) - planes.planes), 0, 1023)
    assert np.array_equal(changed.deep, expected)
    assert changed.deep.dtype == np.uint16
    assert np.array_equal(planes.with_planes(planes.planes).deep, planes.deep)
    assert np.array_equal(changed.with_planes(planes.planes).planes, planes.planes)


@pytest.mark.parametrize("kind", [Yuv420, Yuv420p10])
def test_the_change_of_bgr_is_added_to_planes(kind: type[Yuv420]) -> None:
    before = kind.from_video_frame(Yuv420.from_bgr(make_image(34, 20), PQ).to_video_frame())
    same = before.with_bgr(before.bgr)
    assert np.array_equal(same.planes, before.planes)
    if isinstance(same, Yuv420p10):
        assert isinstance(before, Yuv420p10)
        assert np.array_equal(same.deep, before.deep)
    brighter = np.clip(before.bgr.astype(int) + 10, 0, 255).astype(np.uint8)
    result = before.with_bgr(brighter)
    expected = Yuv420.from_bgr(brighter, PQ).planes
    assert np.abs(result.planes.astype(int) - expected).mean() < 1.5


def test_two_frames_beside_each_other_keep_their_bits() -> None:
    left, right = (Yuv420p10.from_video_frame(make_frame(seed=seed)) for seed in (0, 1))
    both = place_beside(left, right)
    assert isinstance(both, Yuv420p10)
    assert both.size == (68, 20)
    parts = [words_of(image.to_video_frame()) for image in (both, left, right)]
    for wide, one, other in zip(*parts, strict=True):
        assert np.array_equal(wide, np.hstack((one, other)))
    plain = Yuv420.from_bgr(make_image(34, 20), PQ)
    assert type(place_beside(left, plain)) is Yuv420


def test_a_later_frame_with_other_colours_or_of_odd_size_has_8_bits() -> None:
    reader = PlanesReader(make_frame())
    assert isinstance(reader.read(make_frame(seed=1)), Yuv420p10)
    other = make_frame(seed=1)
    BT709.tag(other)
    assert type(reader.read(other)) is Yuv420
    assert reader.read(make_frame("yuv444p10le", size=(35, 21))).size == (34, 20)


# Whole runs


def write_deep(
    path: Path,
    *,
    count: int = 6,
    codec: str = "ffv1",
    size: tuple[int, int] = (64, 48),
    pixel_format: str = "yuv420p10le",
    colour: ColourTags = PQ,
) -> None:
    """Write a clip with random values of 10 bits, at 25 fps; lossless by default."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.codec_context.time_base = Fraction(1, 1000)
        colour.tag(stream.codec_context)
        for index in range(count):
            frame = make_frame(pixel_format, size=size, seed=index)
            colour.tag(frame)
            frame.pts, frame.time_base = 40 * index, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


class Kept:
    """A sink that keeps what it gets."""

    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.images: list[Any] = []

    def write(self, frame: Any) -> None:
        self.images.append(frame.pixels)

    def close(self, *, complete: bool) -> None: ...


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """Return an engine that changes nothing; beside it lies one for planes."""
    folder = tmp_path / "engines"
    folder.mkdir()
    same = [helper.make_node("Identity", ["x0"], ["y"])]
    write_engine(folder / "same_yuv420.onnx", nodes=same, shape=PLANES)
    return write_engine(folder / "same.onnx", nodes=same)


@pytest.mark.parametrize("pixels", ["yuv420", "bgr"])
def test_a_frame_that_the_network_leaves_alone_is_what_was_decoded(pixels: Any, engines: Path, tmp_path: Path) -> None:
    write_deep(tmp_path / "in.mkv")
    source = open_source(str(tmp_path / "in.mkv"))
    source.deliver_planes()  # type: ignore[attr-defined]
    assert source.info.format.bits == 10
    sink = Kept()
    with open_engine(engines, pixels=pixels, provider="cpu") as engine:
        Pipeline(source, engine, sink).run()
    decoded = decode(tmp_path / "in.mkv")
    assert len(sink.images) == len(decoded) == 6
    for image, frame in zip(sink.images, decoded, strict=True):
        assert is_same(image.to_video_frame(), frame)


@pytest.mark.parametrize("extra", [["--pixels", "yuv420"], ["--pixels", "bgr"], ["--side-by-side"]])
def test_a_video_keeps_10_bits_and_its_tags(
    extra: list[str], engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=0.5,format=yuv420p10le", "-c:v", "ffv1", tmp_path / "raw.mkv")
    tags = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc", "-color_range", "tv")
    ffmpeg("-i", tmp_path / "raw.mkv", "-c:v", "libx264", "-crf", 4, *tags, source)
    command = ["--source", source, "--out", out, "--engine", engines, "--provider", "cpu", *extra]
    assert main([str(word) for word in command]) == 0
    lines = capsys.readouterr().err
    assert "10 bits; HDR (PQ), which the network sees as it is coded" in lines
    assert [line for line in lines.splitlines() if line.startswith("warning: ")] == [REFUSED]
    before, after = decode(source), decode(out)
    assert after[0].format.name == "yuv420p10le"
    assert ColourTags.read(after[0]) == PQ
    for frame, result in zip(before, after, strict=True):
        luma, other = words_of(frame)[0].astype(int), words_of(result)[0].astype(int)
        assert np.abs(luma - other[:, : luma.shape[1]]).mean() < 4  # x264 at CRF 18, in codes of 10 bits
        assert (other % 4).any()  # they are no codes of 8 bits


@pytest.mark.parametrize(
    ("extra", "pixel_format", "lost"),
    [
        (["--codec", "hevc"], "yuv420p10le", []),
        (["--codec", "av1"], "yuv420p10le", []),
        (["--codec", "hevc", "--pixel-format", "yuv422p10le"], "yuv422p10le", []),
        (["--pixel-format", "yuv420p"], "yuv420p", ["10-bit HDR (PQ) frames were reduced to 8 bits"]),
        (["--pixel-format", "nv12"], "yuv420p", ["10-bit HDR (PQ) frames were reduced to 8 bits"]),
    ],
)
def test_the_pixel_format_decides_the_bits(
    extra: list[str],
    pixel_format: str,
    lost: list[str],
    engines: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_deep(tmp_path / "in.mkv", count=2, size=(128, 96))
    out = tmp_path / "out.mp4"
    command = ["--source", tmp_path / "in.mkv", "--out", out, "--engine", engines, "--crf", "1", *extra]
    assert main([str(word) for word in command]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("warning: ")] == [f"warning: {line}" for line in lost]
    before, after = decode(tmp_path / "in.mkv")[1], decode(out)[1]
    assert after.format.name == pixel_format
    luma = 4.0 * after.to_ndarray()[:96] if lost else words_of(after)[0].astype(float)
    assert np.abs(luma - words_of(before)[0]).mean() < 12


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
def test_a_resumed_video_of_10_bits_is_the_same(codec: Codec, tmp_path: Path) -> None:
    """A chunk of five seconds is complete in the unfinished file."""
    write_deep(tmp_path / "in.mkv", count=150, size=(64, 64))
    settings = EncoderSettings(codec=codec)
    results = []
    for stops in ((150,), (140, 150)):
        out = tmp_path / f"out{len(stops)}.mp4"
        for stop in stops:
            source = VideoSource(tmp_path / "in.mkv")
            source.deliver_planes()
            sink = VideoSink(out, source.info, job="test", settings=settings)
            done = sink.resume(source.start)
            assert (done > 0) == (stop > stops[0])
            if done:
                source.skip(done)
            for _, frame in zip(range(stop - done), source, strict=False):
                sink.write(frame)
            sink.close(complete=stop == 150)
        results.append(decode(out))
    assert len(results[0]) == len(results[1]) == 150
    assert results[0][0].format.name == "yuv420p10le"
    assert all(is_same(*pair) for pair in zip(*results, strict=True))


def test_segments_keep_10_bits(engines: Path, tmp_path: Path) -> None:
    write_deep(tmp_path / "in.mkv", count=10)
    command = ["--source", tmp_path / "in.mkv", "--out", tmp_path / "out.mkv", "--segment-s", 0.2, "--engine", engines]
    assert main([str(word) for word in command]) == 0
    parts = [decode(part) for part in sorted(tmp_path.glob("out_*.mkv"))]
    assert len(parts) == 2
    assert {frame.format.name for part in parts for frame in part} == {"yuv420p10le"}


def test_a_stream_delivers_10_bits_and_its_metadata(tmp_path: Path) -> None:
    path = tmp_path / "in.mp4"
    write_hdr(path, "libx265", frames=20)  # a stream leaves out the first ones
    source = LiveSource("stream", lambda: NetworkFeed(str(path)), Watch(max_reconnects=0))
    assert source.info.format.hdr == METADATA
    source.deliver_planes()
    assert source.info.format.bits == 10
    frame = next(iter(source))
    source.close()
    assert isinstance(frame.pixels, Yuv420p10)
    assert any(is_same(frame.pixels.to_video_frame(), decoded) for decoded in decode(path))


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "p010le", "yuv422p10le", "yuv420p", "nv12"])
def test_frames_reach_encoders_in_their_formats(pixel_format: str) -> None:
    """A stream of 10 bits may also have frames of 8 bits, and frames of another size, which are scaled."""
    deep = Yuv420p10.from_video_frame(make_frame())
    flat = Yuv420.from_bgr(make_image(34, 20), PQ)
    for image, size in ((deep, (34, 20)), (flat, (34, 20)), (deep, (20, 12)), (make_image(34, 20), (34, 20))):
        frame = to_video_frame(image, size, pixel_format, PQ)
        assert (frame.format.name, frame.width, frame.height) == (pixel_format, *size)
        assert ColourTags.read(frame) == PQ
        if size != (34, 20):
            continue
        luma = Yuv420p10.from_video_frame(frame).deep[:20]
        if isinstance(image, Yuv420p10):
            assert np.abs(luma - deep.deep[:20].astype(float)).max() <= (0 if pixel_format.find("10") > 0 else 3)
        else:
            assert np.abs(luma - 4.0 * flat.luma).mean() < 4


@pytest.mark.parametrize(("colour", "size", "bits"), [(PQ, (64, 48), 10), (BT709, (64, 720), 10), (BT709, (64, 48), 8)])
def test_y4m_keeps_10_bits_where_readers_know_or_are_told_the_meaning(
    colour: ColourTags, size: tuple[int, int], bits: int, tmp_path: Path
) -> None:
    write_deep(tmp_path / "in.mkv", count=3, size=size, colour=colour)
    source, content = VideoSource(tmp_path / "in.mkv"), io.BytesIO()
    source.deliver_planes()
    sink = PipeSink(source.info, kind="y4m", stream=content)
    frames = list(source)
    other = Yuv420.from_bgr(make_image(32, 20), colour)
    for frame in (*frames, replace(frames[0], pixels=other)):
        sink.write(frame)
    sink.close(complete=True)
    (tmp_path / "out.y4m").write_bytes(content.getvalue())
    written = decode(tmp_path / "out.y4m")
    assert len(written) == 4
    assert {frame.format.components[0].bits for frame in written} == {bits}
    if bits == 10:
        assert all(is_same(*pair) for pair in zip(decode(tmp_path / "in.mkv"), written, strict=False))
    assert any("reduced to 8 bits" in line for line in sink.warnings) == (bits == 8)
    assert "1 frames changed size and were scaled to the first" in sink.warnings


STORE = """
import sys, av
with av.open(sys.argv[1], "r", options={"listen": "1"}, timeout=30) as server, av.open(sys.argv[2], "w") as out:
    stream = out.add_stream_from_template(server.streams.video[0])
    try:
        for packet in server.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    except av.FFmpegError:
        pass  # the publisher has left
"""


@pytest.mark.parametrize(("encoder", "pixel_format"), [("hevc", "yuv420p10le"), ("h264", "yuv420p")])
def test_a_published_stream_has_10_bits_in_hevc(encoder: Codec, pixel_format: str, tmp_path: Path) -> None:
    write_deep(tmp_path / "in.mkv", count=30, size=(128, 96))
    source = VideoSource(tmp_path / "in.mkv")
    source.deliver_planes()
    frames = list(source)
    url, stored = f"rtmp://127.0.0.1:{free_port()}/live/a", tmp_path / "stored.mkv"
    server = subprocess.Popen([sys.executable, "-c", STORE, url, stored])
    process = psutil.Process(server.pid)
    wait_until(lambda: any(each.status == psutil.CONN_LISTEN for each in process.net_connections()))
    sink = PublishSink(url, source.info, encoder=EncoderSettings(codec=encoder, crf=1))
    frames[5] = replace(frames[5], pixels=Yuv420.from_bgr(make_image(128, 96), PQ))  # of 8 bits among them
    for frame in frames:
        sink.write(frame)
    sink.close(complete=True)
    server.wait(timeout=30)
    assert any("reduced to 8 bits" in line for line in sink.warnings) == (encoder == "h264")
    first = decode(stored)[0]
    assert first.format.name == pixel_format
    assert ColourTags.read(first) == PQ


def test_images_have_8_bits_and_png_states_the_colours(
    engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_deep(tmp_path / "in.mkv", count=2)
    command = ["--source", tmp_path / "in.mkv", "--out", f"{tmp_path}/images/", "--engine", engines]
    assert main([str(word) for word in command]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert lines == ["warning: 10-bit HDR (PQ) frames were reduced to 8 bits"]
    image = decode(tmp_path / "images" / "frame_000002.png")[0]
    assert (image.color_primaries, image.color_trc) == (9, 16)
    expected = bgr_from_video_frame(decode(tmp_path / "in.mkv")[1])
    assert np.array_equal(cv2.imread(str(tmp_path / "images" / "frame_000002.png")), expected)


def test_a_jpeg_cannot_state_the_colours(engines: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_deep(tmp_path / "in.mov", count=1, codec="prores_ks", pixel_format="yuv422p10le")
    command = ["--source", tmp_path / "in.mov", "--out", tmp_path / "out.jpg", "--engine", engines]
    assert main([str(word) for word in command]) == 0
    assert "warning: images have the values of HDR (PQ) without its tags: they look pale" in capsys.readouterr().err


def test_bgr_of_10_bits_is_that_of_ffmpeg() -> None:
    frame = make_frame()
    assert np.array_equal(Yuv420p10.from_video_frame(frame).bgr, bgr_from_video_frame(frame))
