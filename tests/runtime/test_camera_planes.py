"""Cameras that give 4:2:0: their frames stay planes where the engine takes them, and become BGR elsewhere."""

from __future__ import annotations

import json
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from runtime.colour import ColourTags
from runtime.errors import SourceLostError
from runtime.frame import Pixels
from runtime.options import RunOptions
from runtime.pixel_choice import may_take_planes
from runtime.sources.camera import CameraFeed, PipedFeed, open_csi_feed
from runtime.sources.live import LiveSource, Watch
from runtime.video import main
from runtime.yuv420 import Yuv420
from tests.conftest import make_image, write_engine

PLANES = Yuv420.from_bgr(make_image(64, 48), ColourTags(matrix=6)).planes


def to_driver_format(layout: str) -> Pixels:
    """Return the bytes of the test frame in a format of V4L2, uint8[3 H / 2, W]."""
    luma, (u, v) = PLANES[:48], PLANES[48:].reshape(2, -1)
    chroma = {
        "NV12": np.stack((u, v), axis=1),
        "NV21": np.stack((v, u), axis=1),
        "YU12": np.stack((u, v)),
        "YV12": np.stack((v, u)),
    }[layout]
    return np.concatenate((luma, chroma.reshape(24, 64)))


class Driver:
    """Stand-in for OpenCV's reader of V4L2 devices, as `cap_v4l.cpp` of OpenCV 4 and 5 behaves."""

    def __init__(self, layout: str, *, backend: str = "V4L2", frames: int = 40) -> None:
        self.layout, self.backend, self.frames = layout, backend, frames
        self.converts = True

    def isOpened(self) -> bool:  # noqa: N802 - names of OpenCV
        return True

    def getBackendName(self) -> str:  # noqa: N802
        return self.backend

    def get(self, setting: int) -> float:
        return {cv2.CAP_PROP_FPS: 30.0, cv2.CAP_PROP_FOURCC: float(cv2.VideoWriter.fourcc(*self.layout))}[setting]

    def set(self, setting: int, value: float) -> bool:
        if setting == cv2.CAP_PROP_CONVERT_RGB:
            self.converts = bool(value)
        return True

    def read(self) -> tuple[bool, Pixels | None]:
        self.frames -= 1
        if self.frames < 0:
            return False, None
        if self.converts or self.layout == "YUYV":
            return True, cv2.cvtColor(PLANES, cv2.COLOR_YUV2BGR_I420)
        return True, to_driver_format(self.layout)

    def release(self) -> None: ...


def open_camera(driver: Driver, *, planes: bool) -> LiveSource:
    return LiveSource(
        "camera 0",
        lambda: CameraFeed(0, planes=planes, open_capture=lambda _: driver),  # type: ignore[arg-type,return-value]
        Watch(max_reconnects=0),
    )


@pytest.mark.parametrize("layout", ["NV12", "YU12", "YV12"])
def test_frames_of_a_driver_stay_as_they_are(layout: str) -> None:
    source = open_camera(Driver(layout), planes=True)
    assert source.info.has_planes
    assert source.info.size == (64, 48)
    source.deliver_planes()
    frame = next(iter(source))
    source.close()
    assert isinstance(frame.pixels, Yuv420)
    assert np.array_equal(frame.pixels.planes, PLANES)
    assert (frame.pixels.colour.matrix, frame.pixels.colour.is_full_range) == (6, False)
    opencv = cv2.cvtColor(PLANES, cv2.COLOR_YUV2BGR_I420).astype(int)
    assert np.abs(frame.bgr - opencv).mean() < 4  # chroma is interpolated here, and repeated by OpenCV; BT.709: 7


def test_bgr_is_made_of_them_if_another_source_needs_it() -> None:
    source = open_camera(Driver("NV12"), planes=True)
    frame = next(iter(source))
    source.close()
    assert isinstance(frame.pixels, np.ndarray)
    assert np.abs(frame.pixels - cv2.cvtColor(PLANES, cv2.COLOR_YUV2BGR_I420).astype(int)).mean() < 4


@pytest.mark.parametrize(
    ("driver", "planes"),
    [(Driver("YUYV"), True), (Driver("NV21"), True), (Driver("NV12", backend="FFMPEG"), True), (Driver("NV12"), False)],
)
def test_other_cameras_are_read_as_bgr(driver: Driver, planes: bool) -> None:
    source = open_camera(driver, planes=planes)
    assert not source.info.has_planes
    assert np.array_equal(next(iter(source)).pixels, cv2.cvtColor(PLANES, cv2.COLOR_YUV2BGR_I420))
    source.close()


def test_planes_are_asked_for_only_if_the_engine_takes_them(tmp_path: Path) -> None:
    engine = write_engine(tmp_path / "invert.onnx")
    assert not may_take_planes(RunOptions(engine=engine))
    write_engine(tmp_path / "invert_yuv420.onnx", shape=("n", "rows", "w"))
    assert may_take_planes(RunOptions(engine=engine))
    assert not may_take_planes(RunOptions(engine=engine, pixels="bgr"))


def test_a_camera_through_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.partial.mkv"  # the camera is lost once a frame has been written
    driver = Driver("NV12", frames=10**6)
    read = driver.read

    def read_slowly() -> tuple[bool, Pixels | None]:
        time.sleep(0.02)
        driver.frames = min(driver.frames, 3) if out.exists() else driver.frames
        return read()

    monkeypatch.setattr(driver, "read", read_slowly)

    def open_feed(*_: object, planes: bool, **__: object) -> CameraFeed:
        return CameraFeed(0, planes=planes, open_capture=lambda _: driver)  # type: ignore[arg-type,return-value]

    monkeypatch.setattr("runtime.sources.CameraFeed", open_feed)
    engine = write_engine(tmp_path / "invert_yuv420.onnx", shape=("n", "rows", "w"))
    arguments = ["--source", "0", "--out", str(tmp_path / "out.mkv"), "--engine", str(engine), "--guard", "off"]
    assert main([*arguments, "--max-reconnects", "0", "--frozen-s", "0"]) == SourceLostError.exit_code
    assert "pixels  4:2:0, as decoded" in capsys.readouterr().err
    assert not driver.converts
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
    assert np.abs(frame.to_ndarray().astype(int) - (255 - PLANES)).mean() < 2  # x264 loses a little


# CSI cameras


@pytest.mark.parametrize("width", [32, 34, 36, 42])
def test_planes_of_a_gstreamer_pipeline(width: int) -> None:
    source = "videotestsrc num-buffers=3 pattern=red ! videoconvert"
    try:
        feed = PipedFeed(source, size=(width, 26), frame_rate=Fraction(30), planes=True)
    except SourceLostError as error:
        pytest.skip(str(error))
    frames = []
    with pytest.raises(SourceLostError, match=r"gst-launch-1\.0: "):
        frames.extend(feed)
    feed.close()
    assert len(frames) == 3
    for frame in frames:
        planes = Yuv420.from_video_frame(frame.frame)
        assert planes.size == (width, 26)
        for plane, code in ((planes.luma, 81), (planes.chroma[0], 90), (planes.chroma[1], 240)):  # BT.601 red
            assert np.abs(plane.astype(int) - code).max() <= 1
        assert np.abs(frame().astype(int) - (0, 0, 255)).max() <= 3


def test_a_csi_camera_converts_to_i420_on_the_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch = tmp_path / "gst-launch-1.0"
    record = tmp_path / "arguments.json"
    launch.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(record)!r}, 'w'))\n")
    launch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    pipelines = {}
    for size, planes in (((1280, 720), True), ((1280, 720), False), ((1281, 720), True)):
        feed = open_csi_feed(0, size=size, planes=planes)
        assert isinstance(feed, PipedFeed)
        with pytest.raises(SourceLostError):
            list(feed)
        feed.close()
        pipelines[size, planes] = " ".join(json.loads(record.read_text()))
    assert " nvvidconv ! video/x-raw,format=I420,width=1280,height=720 ! fdsink" in pipelines[(1280, 720), True]
    for key in (((1280, 720), False), ((1281, 720), True)):
        assert " nvvidconv ! video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR,width=" in pipelines[key]
