"""The size of the screen, which OpenCV does not tell."""

from __future__ import annotations

import ctypes
import sys

from runtime.frame import Size

SMALL_SCREEN: Size = (1280, 720)
"""Assumed size in pixels where the screen does not tell its own: on Wayland without X11, and on macOS."""
_USABLE_SHARE = 0.9
"""Share of the screen that frame and panels of the desktop leave to a window."""


def fit_screen(size: Size) -> Size:
    """Return the size of a window for frames of `size`: the same, or smaller with the same aspect ratio."""
    width, height = _read_screen_size() or SMALL_SCREEN
    width = min(width, height * 16 // 9)  # X11 reports several monitors side by side as one screen
    scale = min(1.0, _USABLE_SHARE * width / size[0], _USABLE_SHARE * height / size[1])
    return max(1, round(scale * size[0])), max(1, round(scale * size[1]))


def _read_screen_size() -> Size | None:
    if sys.platform == "win32":
        metrics = ctypes.windll.user32.GetSystemMetrics
        return metrics(0), metrics(1)
    try:
        x11 = ctypes.CDLL("libX11.so.6")
    except OSError:
        return None
    x11.XOpenDisplay.restype = ctypes.c_void_p
    display = ctypes.c_void_p(x11.XOpenDisplay(None))
    if not display:
        return None
    try:
        return x11.XDisplayWidth(display, 0), x11.XDisplayHeight(display, 0)
    finally:
        x11.XCloseDisplay(display)
