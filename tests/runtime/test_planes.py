"""Frames as planes: what the decoder gave reaches engine and encoder, and BGR is there where somebody asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from runtime.colour import BT709, ColourTags, bgr_from_video_frame
from runtime.engines import open_engine
from runtime.engines.onnx import inspect
from runtime.errors import NumbersError, SourceLostError
from runtime.guard import OutputGuard, find_fault
from runtime.orientation import Orientation
from runtime.sources import open_source
from runtime.sources.camera import CameraFeed
from runtime.sources.live import LiveSource, Watch
from runtime.sources.network import NetworkFeed
from runtime.sources.planes import DecodedImage, PlanesReader
from runtime.sources.video import VideoSource
from runtime.stream_format import PLAIN
from runtime.video import main
from runtime.yuv420 import Yuv420, place_beside
from tests.conftest import make_image, write_clip, write_engine
from tests.engine_backends import BACKENDS, OpenBackend, Resources

SHAPE = ("n", "rows", "w")


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def make_frame(pixel_format: str = "yuv420p", size: tuple[int, int] = (34, 20)) -> av.VideoFrame:
    """Return a frame whose rows are padded in memory."""
    frame = av.VideoFrame.from_ndarray(make_image(*size), format="bgr24").reformat(format=pixel_format)
    frame.colorspace, frame.color_range = 1, 2 if pixel_format.startswith("yuvj") else 1
    return frame


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """Return an engine that inverts BGR; beside it lies one for planes, which inverts their codes."""
    folder = tmp_path / "engines"
    folder.mkdir()
    path = write_engine(folder / "invert.onnx")
    write_engine(folder / "invert_yuv420.onnx", shape=SHAPE)
    return path


# Planes


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "nv12"])
def test_planes_are_the_values_of_the_decoder(pixel_format: str) -> None:
    frame = make_frame(pixel_format)
    planes = Yuv420.from_video_frame(frame)
    assert planes.size == (34, 20)
    assert planes.planes.shape == (30, 34)
    plain = frame.reformat(format="yuvj420p" if pixel_format == "yuvj420p" else "yuv420p").to_ndarray()
    assert np.array_equal(planes.planes, plain)
    assert planes.colour.is_full_range == (pixel_format == "yuvj420p")
    assert np.array_equal(planes.bgr, bgr_from_video_frame(frame))


def test_another_pixel_format_is_converted() -> None:
    planes = Yuv420.from_video_frame(make_frame("yuv444p"))
    assert np.abs(planes.bgr.astype(int) - make_image(34, 20)).mean() < 8  # chroma at half the size


@pytest.mark.parametrize("rotation", [0, 90, 180, 270, -90])
def test_rotated_planes_are_the_planes_of_the_rotated_frame(rotation: int) -> None:
    frame = make_frame()
    upright = Yuv420.from_video_frame(frame)
    turned = Yuv420.from_video_frame(frame, orientation=Orientation(rotation))
    assert np.array_equal(turned.luma, np.rot90(upright.luma, rotation // 90))
    for plane, other in zip(turned.chroma, upright.chroma, strict=True):
        assert np.array_equal(plane, np.rot90(other, rotation // 90))


def test_a_video_frame_of_planes_has_their_values_and_tags() -> None:
    planes = Yuv420.from_bgr(make_image(34, 20), ColourTags(matrix=6, primaries=5, transfer=6, is_full_range=True))
    frame = planes.to_video_frame()
    assert Yuv420.from_video_frame(frame).colour == planes.colour
    assert np.array_equal(frame.to_ndarray(), planes.planes)
    assert np.abs(planes.bgr.astype(int) - make_image(34, 20)).mean() < 8  # chroma at half the size


def test_two_frames_side_by_side() -> None:
    left, right = (Yuv420.from_bgr(make_image(34, 20, seed), BT709) for seed in (0, 1))
    both = place_beside(left, right)
    assert isinstance(both, Yuv420)
    assert both.size == (68, 20)
    assert np.array_equal(both.luma, np.hstack((left.luma, right.luma)))
    assert np.array_equal(both.chroma, np.concatenate((left.chroma, right.chroma), axis=2))


# Sources


def test_a_source_delivers_the_planes_of_its_decoder_at_the_same_times(clip: Path) -> None:
    source = VideoSource(clip)
    assert source.info.has_planes
    source.deliver_planes()
    frames, decoded = list(source), decode(clip)
    assert [frame.pts for frame in frames] == [frame.pts for frame in open_source(str(clip))]
    assert len(frames) == len(decoded) == 10
    for frame, original in zip(frames, decoded, strict=True):
        assert isinstance(frame.pixels, Yuv420)
        assert np.array_equal(frame.pixels.planes, original.to_ndarray())
        assert frame.size == (64, 48)
        assert np.array_equal(frame.bgr, frame.pixels.bgr)


@pytest.mark.parametrize(("size", "matrix"), [((64, 48), 6), ((1280, 720), 1)])
def test_unstated_colours_are_tagged_as_players_read_them(size: tuple[int, int], matrix: int, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", size=size, pts=[0])
    source = VideoSource(tmp_path / "clip.mp4")
    expected = next(iter(VideoSource(tmp_path / "clip.mp4"))).bgr
    source.deliver_planes()
    assert source.info.format.colour.matrix == matrix
    difference = np.abs(next(iter(source)).bgr.astype(int) - expected)
    assert difference.mean() < 2  # a wrong matrix makes 6.7, chroma at another place 1.8


@pytest.mark.parametrize(
    ("pix_fmt", "size"),
    [
        ("yuv444p", (64, 48)),
        ("yuv420p10le", (65, 48)),
        ("yuv420p", (65, 48)),
        ("gray", (64, 48)),
        ("gray10le", (64, 48)),
    ],
)
def test_other_videos_have_no_planes(pix_fmt: str, size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, pix_fmt=pix_fmt, size=size, codec="ffv1", pts=list(range(3)), time_base=Fraction(1, 25))
    assert not VideoSource(path).info.has_planes


@pytest.mark.parametrize("rotation", [0, 90])
def test_a_later_frame_of_odd_size_loses_its_last_row_and_column(rotation: int) -> None:
    reader = PlanesReader(make_frame())
    frame = make_frame("yuv444p", size=(35, 21))
    planes = reader.read(frame, orientation=Orientation(rotation))
    expected = np.rot90(bgr_from_video_frame(frame), rotation // 90)
    height, width = (side // 2 * 2 for side in expected.shape[:2])
    assert planes.size == (width, height)
    assert np.array_equal(planes.planes, Yuv420.from_bgr(expected[:height, :width], BT709).planes)


def test_a_stream_delivers_planes(tmp_path: Path) -> None:
    path = tmp_path / "in.avi"
    times = {"pts": list(range(40)), "time_base": Fraction(1, 25)}
    write_clip(path, codec="mjpeg", pix_fmt="yuvj420p", size=(320, 240), **times)  # every frame is a key frame
    source = LiveSource("stream", lambda: NetworkFeed(str(path)), Watch(max_reconnects=0))
    assert source.info.has_planes
    assert source.info.size == (320, 240)
    source.deliver_planes()
    assert source.info.format.colour.is_full_range
    frame = next(iter(source))
    source.close()
    assert isinstance(frame.pixels, Yuv420)
    assert any(np.array_equal(frame.pixels.planes, decoded.to_ndarray()) for decoded in decode(path))


def test_frozen_planes_are_noticed(tmp_path: Path) -> None:
    """The luma decides whether frames are identical."""
    still = [av.VideoFrame.from_ndarray(make_image(64, 48), format="bgr24").reformat(format="yuv420p")] * 500

    class Still:
        frame_rate, format, damaged_packets = Fraction(1000), PLAIN, 0

        def __iter__(self) -> Iterator[DecodedImage]:
            for frame in still:
                yield DecodedImage(frame)
                time.sleep(0.002)

        def close(self) -> None: ...

    source = LiveSource("still", Still, Watch(frozen_s=0.1, max_reconnects=0))
    source.deliver_planes()
    with pytest.raises(SourceLostError, match="identical frames"):
        for _ in source:
            pass


def test_a_camera_of_bgr_has_no_planes(clip: Path) -> None:
    feed = partial(CameraFeed, 0, open_capture=lambda _: cv2.VideoCapture(str(clip)))
    source = LiveSource("camera 0", feed, Watch(max_reconnects=0))
    assert not source.info.has_planes
    source.close()


# Whole runs


def test_frames_go_as_planes_from_the_decoder_to_the_encoder(
    engines: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No colour is converted: both functions that do it fail."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a colour was converted")

    for name in ("runtime.sources.video.bgr_from_video_frame", "runtime.sinks.conversion.video_frame_from_bgr"):
        monkeypatch.setattr(name, fail)
    out = tmp_path / "out.mkv"
    assert main(["--source", str(clip), "--out", str(out), "--engine", str(engines), "--guard", "off"]) == 0
    assert "pixels  4:2:0, as decoded" in capsys.readouterr().err
    expected, written = decode(clip), decode(out)
    assert len(written) == len(expected)
    for frame, original in zip(written, expected, strict=True):
        difference = frame.to_ndarray().astype(int) - (255 - original.to_ndarray())
        assert np.abs(difference).mean() < 2  # x264 loses a little
        assert frame.colorspace == 6


@pytest.mark.parametrize(
    "extra", [["--side-by-side"], ["--skip-sharp", "0.9"], ["--mode", "latency"], ["--guard", "on"]]
)
def test_options_work_on_planes(extra: list[str], engines: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    arguments = ["--source", str(clip), "--out", str(out), "--engine", str(engines), "--pixels", "yuv420"]
    assert main([*arguments, *extra]) == 0
    frames = decode(out)
    assert len(frames) == 10
    assert frames[0].width == (128 if extra[0] == "--side-by-side" else 64)


def test_bgr_on_request(engines: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.mp4"
    assert main(["--source", str(clip), "--out", str(out), "--engine", str(engines), "--pixels", "bgr"]) == 0
    assert "pixels  BGR (as requested)" in capsys.readouterr().err


# Engines


@pytest.mark.parametrize(
    "open_backend", [pytest.param(opener, id=name) for name, opener in BACKENDS if name != "triton"]
)
def test_every_backend_takes_planes_of_even_size_only(
    open_backend: OpenBackend, engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as cleanup:
        engine = Resources(tmp_path, monkeypatch, cleanup).open(open_backend, engines.with_name("invert_yuv420.onnx"))
        assert engine.spec.pixels == "yuv420"
        batch = np.random.default_rng(0).integers(0, 256, (2, 30, 34), dtype=np.uint8)
        assert np.array_equal(engine.infer(batch), 255 - batch)
        for shape in ((1, 30, 33), (1, 31, 34), (30, 34), (1, 20, 34, 3)):
            with pytest.raises(ValueError, match=r"expected uint8\[N, 3 H / 2, W\]"):
                engine.infer(np.zeros(shape, np.uint8))


def test_an_engine_for_planes_restores_images_too(engines: Path) -> None:
    image = make_image(35, 21)
    with open_engine(engines, pixels="yuv420", provider="cpu") as engine:
        restored = engine(image)
        assert restored.shape == image.shape
        assert np.array_equal(engine(np.stack([image, image]))[1], restored)
    gray = image.mean(axis=2), restored.mean(axis=2)
    assert np.corrcoef(gray[0].ravel(), gray[1].ravel())[0, 1] < -0.9  # inverted


def test_the_size_of_a_static_engine_is_that_of_its_frames(tmp_path: Path) -> None:
    spec = inspect(write_engine(tmp_path / "static_yuv420.onnx", shape=("n", 30, 34)))
    assert (spec.width, spec.height) == ((34, 34), (20, 20))


# Guard


def test_the_guard_rejects_impossible_planes() -> None:
    blurred = Yuv420.from_bgr(make_image(200, 100), BT709)
    assert find_fault(blurred, blurred) == ""
    empty, white = (blurred.with_planes(np.full_like(blurred.planes, code)) for code in (0, 255))
    shifted = blurred.planes.copy()
    shifted[100:] = np.clip(shifted[100:].astype(int) + 40, 1, 254)
    assert "blank" in find_fault(blurred, empty)
    assert "saturated" in find_fault(blurred, white)
    assert "mean" in find_fault(blurred, blurred.with_planes(shifted))
    assert OutputGuard()(blurred, empty) is blurred
    with pytest.raises(NumbersError):
        OutputGuard(strict=True)(blurred, empty)
