"""Cameras of this machine: V4L2 through OpenCV, CSI through GStreamer."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import Any

import cv2
import numpy as np

from runtime.errors import SourceLostError
from runtime.frame import Pixels, Size

_USUAL_RATE = 30
_CSI_SIZE: Size = (1280, 720)
Capture = Callable[[Any], cv2.VideoCapture]


class CameraFeed:
    """A camera by its index or device; `size` and `fps` are asked of it, and what it does is taken."""

    def __init__(
        self,
        device: int | str,
        *,
        size: Size | None = None,
        fps: float | None = None,
        open_capture: Capture = cv2.VideoCapture,
    ) -> None:
        # OpenCV logs what every driver says of a camera that is not there; the error below says it once.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = open_capture(device)
        if not self._capture.isOpened():
            raise SourceLostError("camera does not open", str(device), hint="check that it is plugged in")
        wanted = {cv2.CAP_PROP_BUFFERSIZE: 1.0}
        if size:
            wanted |= {cv2.CAP_PROP_FRAME_WIDTH: float(size[0]), cv2.CAP_PROP_FRAME_HEIGHT: float(size[1])}
        if fps:
            wanted[cv2.CAP_PROP_FPS] = fps
        for setting, value in wanted.items():
            self._capture.set(setting, value)
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.frame_rate = Fraction(rate).limit_denominator(1001) if rate >= 1 else Fraction(_USUAL_RATE)

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        while True:
            found, pixels = self._capture.read()
            if not found:
                return
            yield partial(np.asarray, pixels, np.uint8)

    def close(self) -> None:
        self._capture.release()


def csi_feed(sensor: int, *, size: Size | None = None, fps: float | None = None) -> CameraFeed | PipedFeed:
    """A CSI camera of a Jetson: through OpenCV where it was built with GStreamer, else through `gst-launch-1.0`."""
    width, height = size or _CSI_SIZE
    rate = Fraction(fps or _USUAL_RATE).limit_denominator(1001)
    source = (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},"
        f"framerate={rate.numerator}/{rate.denominator} ! nvvidconv ! video/x-raw,format=BGRx ! videoconvert"
    )
    if "GStreamer:                   YES" in cv2.getBuildInformation():
        pipeline = f"{source} ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
        return CameraFeed(pipeline, open_capture=lambda text: cv2.VideoCapture(str(text), cv2.CAP_GSTREAMER))
    return PipedFeed(source, size=(width, height), frame_rate=rate)


class PipedFeed:
    """A GStreamer pipeline in a child process that writes raw BGR frames."""

    def __init__(self, source: str, *, size: Size, frame_rate: Fraction) -> None:
        self.frame_rate, self._size = frame_rate, size
        launch = shutil.which("gst-launch-1.0")
        if launch is None:
            raise SourceLostError(
                "neither OpenCV with GStreamer nor gst-launch-1.0 is here",
                hint="on a Jetson use JetPack's OpenCV, or apt install gstreamer1.0-tools",
            )
        caps = f"video/x-raw,format=BGR,width={size[0]},height={size[1]}"
        command = [launch, "--quiet", *f"{source} ! {caps} ! fdsink fd=1 sync=false".split()]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: S603

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        width, height = self._size
        assert self._child.stdout
        assert self._child.stderr
        while len(packed := self._child.stdout.read(3 * width * height)) == 3 * width * height:
            yield np.frombuffer(packed, np.uint8).reshape(height, width, 3).copy
        said = self._child.stderr.read().decode(errors="replace").strip().splitlines()
        reason = said[0] if said else "it ended"
        raise SourceLostError(f"gst-launch-1.0: {reason}", hint="check the camera and nvarguscamerasrc")

    def close(self) -> None:
        self._child.kill()
        self._child.communicate()
