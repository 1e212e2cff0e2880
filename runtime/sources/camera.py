"""A camera on this machine, by its index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from time import perf_counter

import cv2
import numpy as np

from runtime.errors import SourceLostError
from runtime.frame import Frame
from runtime.sources.base import SourceInfo

_TIME_BASE = Fraction(1, 90_000)
_USUAL_RATE = 30


class CameraSource:
    """Frames of a camera, stamped with the time of their arrival.

    Raises SourceLostError if the camera does not open, or stops giving frames.
    """

    def __init__(self, index: int, *, open_capture: Callable[[int], cv2.VideoCapture] = cv2.VideoCapture) -> None:
        self._index = index
        # OpenCV logs what every driver says of a camera that is not there; the error below says it once.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = open_capture(index)
        if not self._capture.isOpened():
            raise SourceLostError(
                "camera does not open",
                str(index),
                hint="check that it is plugged in and not in use, or give another --source",
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.warnings: list[str] = []
        self.info = SourceInfo(
            name=f"camera {index}",
            time_base=_TIME_BASE,
            frame_rate=Fraction(rate).limit_denominator(1001) if rate >= 1 else Fraction(_USUAL_RATE),
            is_live=True,
        )

    def __iter__(self) -> Iterator[Frame]:
        start = None
        while True:
            found, pixels = self._capture.read()
            now = perf_counter()
            if not found:
                raise SourceLostError(
                    "camera gives no more frames", str(self._index), hint="check its cable and start again"
                )
            start = now if start is None else start
            pts = round((now - start) / _TIME_BASE)
            yield Frame(pixels=np.asarray(pixels, np.uint8), pts=pts, time_base=_TIME_BASE, captured_at=now)

    def close(self) -> None:
        self._capture.release()
