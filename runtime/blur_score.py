"""A score for how blurred a frame is, without a reference."""

from __future__ import annotations

import cv2
import numpy as np

from runtime.frame import Pixels

SHARP_BLUR_SCORE = 0.36
"""Score below which a frame counts as sharp.

On the demo clip, frames below it lose quality by being restored. All of 61 sharp photographs and frames that were
examined lie below it, and 12 of 62 blurred ones.
"""
_TAPS = 9
_HALVED_ABOVE_LINES = 480
"""Frames with more lines are halved first: blur that matters is wider than two pixels there."""


def blur_score(frame: Pixels) -> float:
    """Return how blurred a frame is, from 0 (sharp) to 1 (blurred): uint8[H, W, 3] BGR, or its luma uint8[H, W].

    Crete et al. 2007, "The blur effect": the share of the differences between neighbouring pixels that survives a
    9-tap mean. The mean removes most of them in a sharp frame and few in a blurred one. The score is that of the
    direction with more blur.
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if frame.ndim == 3 else frame
    if gray.shape[0] > _HALVED_ABOVE_LINES:
        gray = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    gray = gray.astype(np.float32)
    scores = []
    for axis, kernel in ((0, (1, _TAPS)), (1, (_TAPS, 1))):
        before = np.abs(np.diff(gray, axis=axis))
        after = np.abs(np.diff(cv2.blur(gray, kernel, borderType=cv2.BORDER_REPLICATE), axis=axis))
        total = float(before.sum())
        lost = float(np.maximum(0, before - after).sum())
        scores.append((total - lost) / total if total else 1.0)
    return max(scores)
