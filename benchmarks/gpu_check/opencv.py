"""Placeholder for an OpenCV that does not load, so that the command can start and say it on its page.

The command itself uses no image: the steps do, in processes of their own, and they do not run without OpenCV.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from types import ModuleType

with suppress(ImportError):
    import cv2  # noqa: F401
sys.modules.setdefault("cv2", ModuleType("cv2"))
