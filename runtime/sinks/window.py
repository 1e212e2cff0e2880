"""A window on the screen as a sink."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import cv2

from runtime.errors import OutputError, UsageError
from runtime.frame import Frame
from runtime.sinks.screen import fit_screen

_TITLE = "deblur (q quits)"
_HINT = "show no window, and write to a file"
_QUIT_KEYS = {ord("q"), 27}
"""`q` and Esc."""


class WindowSink:
    """Shows each frame when it arrives; it has to be used in the main thread.

    The window has the size of a frame, or less on a smaller screen. The user can resize it; the aspect ratio stays.

    `on_quit` is called when the user presses q or Esc or closes the window. Raises UsageError if there is no screen.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.on_quit: Callable[[], None] = lambda: None
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UsageError("no screen to show frames on", hint=_HINT)
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise UsageError("OpenCV cannot open a window here", hint=_HINT) from error
        self._has_size = False

    def write(self, frame: Frame) -> None:
        """Show a frame and handle the keys that were pressed."""
        try:
            if not self._has_size:
                cv2.resizeWindow(_TITLE, *fit_screen(frame.size))
                self._has_size = True
            cv2.imshow(_TITLE, frame.bgr)
            key = cv2.waitKey(1) & 0xFF
            is_closed = cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1
        except cv2.error as error:
            raise OutputError("window cannot be drawn", hint=_HINT) from error
        if key in _QUIT_KEYS or is_closed:
            self.on_quit()

    def close(self, *, complete: bool) -> None:
        """Close the window."""
        cv2.destroyAllWindows()
