"""How blurred a frame is, without anything to compare it with."""

from __future__ import annotations

import cv2
import numpy as np

from runtime.frame import Pixels

SHARP_BLUR_SCORE = 0.36
"""Below this a frame is taken for sharp. On the demo clip such frames lose by being sharpened; of 61 sharp photographs
and frames at hand all lie below, of 62 blurred ones 12."""
_TAPS = 9
_HALF_FROM = 480
"""Frames with more lines are halved first: blur that matters is wider than two pixels there."""


def blur_score(frame: Pixels) -> float:
    """From 0 (sharp) to 1 (wholly blurred) of uint8[H, W, 3] BGR: Crete et al. 2007, "The blur effect".

    What a 9-tap mean takes from the differences of neighbours: much where they were sharp, little
    where they were blurred already. The direction with more blur counts.
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    if gray.shape[0] > _HALF_FROM:
        gray = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    gray = gray.astype(np.float32)
    found = []
    for axis, size in ((0, (1, _TAPS)), (1, (_TAPS, 1))):
        before = np.abs(np.diff(gray, axis=axis))
        after = np.abs(np.diff(cv2.blur(gray, size, borderType=cv2.BORDER_REPLICATE), axis=axis))
        total = float(before.sum())
        lost = float(np.maximum(0, before - after).sum())
        found.append((total - lost) / total if total else 1.0)
    return max(found)
