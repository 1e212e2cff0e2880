"""How near restored frames come to the truth: PSNR, SSIM, flicker, by level of blur, and where they do harm."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB, psnr_db, ssim

LEVELS = ("least", "less", "more", "most")
"""Quarters of the frames by the PSNR of the blurred input against the truth.

Not by a measure that does without the truth, such as `runtime.blur_score`: those take smooth content for blur, and so
sort frames by what they show.
"""
WORST = 10
HARM_DB = 0.01
"""Frames that lose less are not counted as harmed: that is rounding."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Of one frame."""

    name: str
    psnr_db: float
    ssim: float


class Tally:
    """Collects the scores of one restorer, frame by frame in the order of the clip."""

    def __init__(self) -> None:
        self.scores: list[Score] = []
        self.flicker_codes: list[float] = []
        self._before: tuple[Pixels, Pixels] | None = None

    def add(self, name: str, picture: Pixels, truth: Pixels, *, follows: bool) -> Score:
        """Compare uint8[H, W, 3] BGR with the truth. `follows`: the frame comes after the one added last."""
        score = Score(name=name, psnr_db=min(psnr_db(picture, truth), IDENTICAL_DB), ssim=ssim(picture, truth))
        if follows and self._before is not None:
            self.flicker_codes.append(flicker_codes((self._before[0], picture), (self._before[1], truth)))
        self._before = picture, truth
        self.scores.append(score)
        return score


def flicker_codes(pictures: tuple[Pixels, Pixels], truth: tuple[Pixels, Pixels]) -> float:
    """The error of the difference between two frames that follow each other, in 8-bit codes, root mean square.

    dtSSD of Erofeev et al. 2015, "Perceptually motivated benchmark for video matting", over all channels: the root
    of the mean of ((p[t] - p[t-1]) - (s[t] - s[t-1]))^2. What is wrong alike in both frames does not count.
    """
    moved, should = (np.subtract(each[1], each[0], dtype=np.float64) for each in (pictures, truth))
    return float(np.sqrt(np.mean(np.square(moved - should))))


def told(tally: Tally, blurred: Tally) -> dict[str, Any]:
    """Means over all frames and by level of blur, beside the blurred input."""
    gains_db = gains(tally, blurred)
    order = np.argsort([-each.psnr_db for each in blurred.scores], kind="stable")
    parts = [part for part in np.array_split(order, len(LEVELS)) if len(part)]
    levels = zip(LEVELS if len(parts) == len(LEVELS) else map(str, range(len(parts))), parts, strict=True)
    worst = int(np.argmin(gains_db))
    return {
        **_means(tally, range(len(gains_db))),
        "gain_db": _rounded(gains_db.mean()),
        "flicker_codes": _rounded(np.mean(tally.flicker_codes)) if tally.flicker_codes else None,
        "largest_loss_db": _rounded(max(0.0, -gains_db[worst])),
        "largest_loss_frame": tally.scores[worst].name if gains_db[worst] < 0 else None,
        "harmed_frames": int((gains_db < -HARM_DB).sum()),
        "levels": [
            {
                "level": level,
                "frames": len(part),
                "blurred_psnr_db": _means(blurred, part)["psnr_db"],
                **_means(tally, part),
                "gain_db": _rounded(gains_db[part].mean()),
            }
            for level, part in levels
        ],
    }


def gains(tally: Tally, blurred: Tally) -> NDArray[np.float64]:
    """PSNR gained on each frame, in dB."""
    return np.array(
        [after.psnr_db - before.psnr_db for after, before in zip(tally.scores, blurred.scores, strict=True)]
    )


class Worst:
    """The frames that gain least, with their pictures; memory for no more than these."""

    def __init__(self, count: int = WORST) -> None:
        self._count, self._added = count, 0
        self._kept: list[tuple[float, int, str, Pixels]] = []

    def add(self, name: str, gain_db: float, pictures: Sequence[Pixels]) -> None:
        """`pictures`: put beside one another, uint8[H, W, 3] BGR each."""
        entry = (-gain_db, -self._added, name)
        self._added += 1
        if len(self._kept) < self._count:
            heapq.heappush(self._kept, (*entry, np.hstack(pictures)))
        elif entry > self._kept[0][:3]:
            heapq.heapreplace(self._kept, (*entry, np.hstack(pictures)))

    def ranked(self) -> list[tuple[str, float, Pixels]]:
        """Name, gain in dB and pictures, the worst first."""
        ordered = sorted(self._kept, key=lambda each: each[:3], reverse=True)
        return [(name, -loss, pictures) for loss, _, name, pictures in ordered]


def _means(tally: Tally, part: Any) -> dict[str, float]:
    picked = [tally.scores[index] for index in part]
    return {
        "psnr_db": _rounded(np.mean([each.psnr_db for each in picked])),
        "ssim": _rounded(np.mean([each.ssim for each in picked])),
    }


def _rounded(value: Any) -> float:
    return round(float(value), 4)
