"""A window on the screen."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import cv2

from runtime.errors import OutputError, UsageError
from runtime.frame import Frame

_TITLE = "deblur (q quits)"
_QUIT_KEYS = {ord("q"), 27}


class WindowSink:
    """Shows frames as they come, in the main thread; `on_quit` is called for q, Esc or a closed window.

    Raises UsageError where there is no screen.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.on_quit: Callable[[], None] = lambda: None
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UsageError("there is no screen to show frames on", hint="leave out --show and give --out FILE")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise UsageError("OpenCV cannot open a window here", hint="leave out --show and give --out FILE") from error
        self._sized = False

    def write(self, frame: Frame) -> None:
        try:
            if not self._sized:
                cv2.resizeWindow(_TITLE, *frame.size)
                self._sized = True
            cv2.imshow(_TITLE, frame.pixels)
            key = cv2.waitKey(1) & 0xFF
            closed = cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise OutputError("the window cannot be drawn", hint="leave out --show and give --out FILE") from error
        if key in _QUIT_KEYS or closed:
            self.on_quit()

    def close(self, *, complete: bool) -> None:
        cv2.destroyAllWindows()
