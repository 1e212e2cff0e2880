"""Scores of restored frames against ground truth: PSNR, SSIM, flicker, gain by level of blur, and harmed frames.

If they are asked for, `train.perceptual` adds three more.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.metrics import capped_psnr_db
from runtime.frame import Pixels
from runtime.metrics import ssim

if TYPE_CHECKING:  # it needs torch, which only --perceptual needs
    from train.perceptual import PerceptualMeter, PerceptualScore

LEVELS = ("least", "less", "more", "most")
"""Names of the quarters of the frames, ordered by the PSNR of the blurred input against the ground truth.

A no-reference measure such as `runtime.blur_score.blur_score` would not do: such measures take smooth content for
blur, and would order the frames by their content.
"""
_PERCEPTUAL = ("lpips", "niqe", "grid_codes")
"""Scores of `train.perceptual`."""
WORST_FRAMES = 10
"""Number of the frames with the smallest gain that are kept."""
HARM_DB = 0.01
"""Smallest loss of PSNR in dB that counts as harm; less is rounding."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """PSNR (at most `IDENTICAL_DB`) and SSIM of one frame."""

    name: str
    psnr_db: float
    ssim: float
    perceptual: PerceptualScore | None = None


class ScoreCollector:
    """Scores of one restorer, added frame by frame in the order of the clip."""

    def __init__(self, perceptual: PerceptualMeter | None = None) -> None:
        self._perceptual = perceptual
        self.scores: list[Score] = []
        self.flicker_codes: list[float] = []
        self._previous: tuple[Pixels, Pixels] | None = None

    def add(self, name: str, image: Pixels, reference: Pixels, *, is_consecutive: bool) -> Score:
        """Compare an image with its ground truth, uint8[H, W, 3] BGR each.

        `is_consecutive`: whether the frame follows the frame that was added last, so that flicker can be measured.
        """
        score = Score(
            name=name,
            psnr_db=capped_psnr_db(image, reference),
            ssim=ssim(image, reference),
            perceptual=self._perceptual.measure(image, reference) if self._perceptual else None,
        )
        if is_consecutive and self._previous is not None:
            previous_image, previous_reference = self._previous
            self.flicker_codes.append(flicker_codes((previous_image, image), (previous_reference, reference)))
        self._previous = image, reference
        self.scores.append(score)
        return score


def flicker_codes(images: tuple[Pixels, Pixels], references: tuple[Pixels, Pixels]) -> float:
    """Return the RMS error of the difference between two consecutive frames, in 8-bit codes.

    This is dtSSD of Erofeev et al. 2015, "Perceptually motivated benchmark for video matting", over all channels: the
    root of the mean of ((p[t] - p[t-1]) - (s[t] - s[t-1]))^2. An error that is equal in both frames does not count.
    """
    change, reference_change = (np.subtract(pair[1], pair[0], dtype=np.float64) for pair in (images, references))
    return float(np.sqrt(np.mean(np.square(change - reference_change))))


def summarize_scores(collector: ScoreCollector, blurred: ScoreCollector) -> dict[str, Any]:
    """Return the means over all frames and by level of blur, and the gain over the blurred input."""
    gains_db = compute_gains_db(collector, blurred)
    order = np.argsort([-score.psnr_db for score in blurred.scores], kind="stable")
    parts = [part for part in np.array_split(order, len(LEVELS)) if len(part)]
    levels = zip(LEVELS if len(parts) == len(LEVELS) else map(str, range(len(parts))), parts, strict=True)
    worst = int(np.argmin(gains_db))
    return {
        **_average(collector, range(len(gains_db))),
        "gain_db": _round(gains_db.mean()),
        "flicker_codes": _round(np.mean(collector.flicker_codes)) if collector.flicker_codes else None,
        "largest_loss_db": _round(max(0.0, -gains_db[worst])),
        "largest_loss_frame": collector.scores[worst].name if gains_db[worst] < 0 else None,
        "harmed_frames": int((gains_db < -HARM_DB).sum()),
        "levels": [
            {
                "level": level,
                "frames": len(part),
                "blurred_psnr_db": _average(blurred, part)["psnr_db"],
                **_average(collector, part),
                "gain_db": _round(gains_db[part].mean()),
            }
            for level, part in levels
        ],
    }


def compute_gains_db(collector: ScoreCollector, blurred: ScoreCollector) -> NDArray[np.float64]:
    """Return the PSNR gained on each frame in dB, float64[frames]."""
    pairs = zip(collector.scores, blurred.scores, strict=True)
    return np.array([after.psnr_db - before.psnr_db for after, before in pairs])


class WorstFrames:
    """The frames with the smallest gain and their images; keeps no more than `count` of them in memory."""

    def __init__(self, count: int = WORST_FRAMES) -> None:
        self._count, self._added = count, 0
        self._kept: list[tuple[float, int, str, Pixels]] = []

    def add(self, name: str, gain_db: float, images: Sequence[Pixels]) -> None:
        """Offer a frame; its `images`, uint8[H, W, 3] BGR each, are joined side by side."""
        entry = (-gain_db, -self._added, name)
        self._added += 1
        if len(self._kept) < self._count:
            heapq.heappush(self._kept, (*entry, np.hstack(images)))
        elif entry > self._kept[0][:3]:
            heapq.heapreplace(self._kept, (*entry, np.hstack(images)))

    def ranked(self) -> list[tuple[str, float, Pixels]]:
        """Return name, gain in dB and joined image of each frame, the smallest gain first."""
        ordered = sorted(self._kept, key=lambda entry: entry[:3], reverse=True)
        return [(name, -loss_db, image) for loss_db, _, name, image in ordered]


def _average(collector: ScoreCollector, indices: Any) -> dict[str, float]:
    scores = [collector.scores[index] for index in indices]
    means = {"psnr_db": _round(np.mean([score.psnr_db for score in scores]))}
    means["ssim"] = _round(np.mean([score.ssim for score in scores]))
    for name in _PERCEPTUAL:
        values = [getattr(score.perceptual, name) for score in scores if score.perceptual]
        measured = [value for value in values if value is not None]
        if measured:
            means[name] = _round(np.mean(measured))
    return means


def _round(value: Any) -> float:
    return round(float(value), 4)
