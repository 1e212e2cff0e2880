"""Cameras of this machine: V4L2 through OpenCV, CSI through GStreamer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from threading import Thread
from typing import Any

import cv2
import numpy as np

from runtime.colour import default_matrix
from runtime.errors import SourceLostError
from runtime.frame import Pixels, Size
from runtime.sources.planes import DecodedImage, wrap_planes
from runtime.stream_format import PLAIN

_DEFAULT_RATE = 30
_KEPT_MESSAGES = 20
_JOIN_S = 1.0
"""Seconds to wait for the last messages of a child that has ended."""
_END_S = 3.0
"""Seconds that a child may take to close its camera."""
_DEFAULT_CSI_SIZE: Size = (1280, 720)
_V4L2_LAYOUTS = {"NV12": "nv12", "YU12": "yuv420p", "YV12": "yuv420p"}
"""FFmpeg's names of the 4:2:0 formats of V4L2; YV12 has V before U."""
_V4L2_MATRIX = 6
"""Matrix that OpenCV converts the formats of V4L2 with: BT.601."""
Capture = Callable[[Any], cv2.VideoCapture]


class CameraFeed:
    """A camera by its index or device, read through OpenCV.

    `size` in pixels and `fps` are requests: the camera may deliver other values. With `planes`, frames that the driver
    gives in 4:2:0 stay as they are; `layout` is their format if it is known without the driver. `open_capture` opens
    the device; tests replace it. Raises SourceLostError if the camera does not open.
    """

    damaged_packets = 0

    def __init__(
        self,
        device: int | str,
        *,
        size: Size | None = None,
        fps: float | None = None,
        planes: bool = False,
        layout: str = "",
        open_capture: Capture = cv2.VideoCapture,
    ) -> None:
        # OpenCV logs the messages of every driver for a missing camera; the error below says it once.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = open_capture(device)
        if not self._capture.isOpened():
            raise SourceLostError("camera does not open", str(device), hint="check that it is plugged in")
        requests = {cv2.CAP_PROP_BUFFERSIZE: 1.0}
        if size:
            requests |= {cv2.CAP_PROP_FRAME_WIDTH: float(size[0]), cv2.CAP_PROP_FRAME_HEIGHT: float(size[1])}
        if fps:
            requests[cv2.CAP_PROP_FPS] = fps
        for setting, value in requests.items():
            self._capture.set(setting, value)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.format = PLAIN
        self.frame_rate = Fraction(rate).limit_denominator(1001) if rate >= 1 else Fraction(_DEFAULT_RATE)
        self._layout = layout or (self._keep_planes() if planes else "")

    def _keep_planes(self) -> str:
        """Let OpenCV deliver what a driver gives in 4:2:0; return the driver's format, empty for another one."""
        if self._capture.getBackendName() != "V4L2":
            return ""
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        layout = code.to_bytes(4, "little", signed=True).decode("latin-1")
        return layout if layout in _V4L2_LAYOUTS and self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0) else ""

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        """Yield a function for each frame, which returns its pixels, until the camera gives no more."""
        while True:
            has_frame, pixels = self._capture.read()
            if not has_frame:
                return
            if self._layout and pixels.ndim == 2:
                yield _wrap(np.asarray(pixels, np.uint8), self._layout)
            else:
                yield partial(np.asarray, pixels, np.uint8)

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


def _wrap(planes: Pixels, layout: str) -> DecodedImage:
    """Return the bytes uint8[3 H / 2, W] of a frame in a format of V4L2, or in `I420` of GStreamer."""
    height = planes.shape[0] * 2 // 3
    if layout == "I420":
        return wrap_planes(planes, pixel_format="yuv420p", matrix=default_matrix(height))
    if layout == "YV12":
        chroma = planes[height:].reshape(2, -1)[::-1]
        planes = np.concatenate((planes[:height], chroma.reshape(height // 2, -1)))
    return wrap_planes(planes, pixel_format=_V4L2_LAYOUTS[layout], matrix=_V4L2_MATRIX)


def open_csi_feed(
    sensor: int, *, size: Size | None = None, fps: float | None = None, planes: bool = False
) -> CameraFeed | PipedFeed:
    """Open a CSI camera of a Jetson by its sensor number; 1280x720 at 30 frames per second by default.

    OpenCV reads it if it was built with GStreamer, otherwise `gst-launch-1.0` does. With `planes`, the Jetson converts
    its frames to I420, which takes no processor time, instead of BGRx. Raises SourceLostError if neither is installed
    or the camera does not open.
    """
    width, height = size or _DEFAULT_CSI_SIZE
    planes = planes and width % 2 == height % 2 == 0
    rate = Fraction(fps or _DEFAULT_RATE).limit_denominator(1001)
    source = (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},"
        f"framerate={rate.numerator}/{rate.denominator} ! nvvidconv"
    )
    source += "" if planes else " ! video/x-raw,format=BGRx ! videoconvert"
    if "GStreamer:                   YES" in cv2.getBuildInformation():
        pipeline = (
            f"{source} ! video/x-raw,format={'I420' if planes else 'BGR'} ! appsink drop=true max-buffers=1 sync=false"
        )
        return CameraFeed(
            pipeline,
            layout="I420" if planes else "",
            open_capture=lambda text: cv2.VideoCapture(str(text), cv2.CAP_GSTREAMER),
        )
    return PipedFeed(source, size=(width, height), frame_rate=rate, planes=planes)


class PipedFeed:
    """A GStreamer pipeline in a child process, `gst-launch-1.0`, which writes raw frames to a pipe.

    `source` is the pipeline up to raw video of `size` in pixels, even with `planes`. Frames are BGR, or I420 with
    `planes`. Raises SourceLostError if `gst-launch-1.0` is not
    installed.
    """

    damaged_packets = 0

    def __init__(self, source: str, *, size: Size, frame_rate: Fraction, planes: bool = False) -> None:
        self.frame_rate, self.format, self._size, self._planes = frame_rate, PLAIN, size, planes
        launch = shutil.which("gst-launch-1.0")
        if launch is None:
            raise SourceLostError(
                "neither OpenCV with GStreamer nor gst-launch-1.0 is installed",
                hint="on a Jetson use JetPack's OpenCV, or apt install gstreamer1.0-tools",
            )
        caps = f"video/x-raw,format={'I420' if planes else 'BGR'},width={size[0]},height={size[1]}"
        read_end, write_end = os.pipe()  # not standard output: nvarguscamerasrc prints messages there
        command = [launch, "--quiet", *f"{source} ! {caps} ! fdsink fd={write_end} sync=false".split()]
        self._pixels = os.fdopen(read_end, "rb")
        try:
            self._child = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=(write_end,)
            )
        finally:
            os.close(write_end)
        self._messages: list[bytes] = []
        """First lines of the child's standard error."""
        self._drain = Thread(target=self._read_messages, name="gst-launch", daemon=True)
        self._drain.start()

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        """Yield a function for each frame, which returns its pixels; raises SourceLostError when the child ends."""
        width, height = self._size
        # GStreamer begins each row at a multiple of four bytes.
        row, half = (-(-side // 4) * 4 for side in (width if self._planes else 3 * width, width // 2))
        size = row * height + (half * height if self._planes else 0)  # U and V have half the rows each
        while len(content := self._pixels.read(size)) == size:
            rows = np.frombuffer(content, np.uint8, row * height).reshape(height, row)
            if self._planes:
                chroma = np.frombuffer(content, np.uint8, offset=row * height).reshape(height, half)[:, : width // 2]
                planes = np.concatenate((rows[:, :width], chroma.reshape(height // 2, width)))
                yield _wrap(planes, "I420")
            else:
                yield rows[:, : 3 * width].reshape(height, width, 3).copy
        self._drain.join(_JOIN_S)
        reason = self._messages[0].decode(errors="replace").strip() if self._messages else "it ended"
        raise SourceLostError(f"gst-launch-1.0: {reason}", hint="check the camera and nvarguscamerasrc")

    def close(self) -> None:
        """End the child process, after time to close the camera: nvargus-daemon may keep it for one that is killed."""
        self._child.send_signal(signal.SIGINT)
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._pixels.close()

    def _read_messages(self) -> None:
        """Keep the first messages and discard the others: a full pipe would stop the child."""
        assert self._child.stderr
        with self._child.stderr as stream:
            for line in stream:
                if line.strip() and len(self._messages) < _KEPT_MESSAGES:
                    self._messages.append(line)
