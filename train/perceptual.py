"""Scores that are closer to what a person sees than PSNR: LPIPS, NIQE, and the strength of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.errors import UsageError
from runtime.metrics import GRID_MIN_PX, grid_codes
from train.data.blur import Image
from train.niqe import niqe
from train.training.lpips import Lpips


@dataclass(frozen=True, kw_only=True)
class PerceptualScore:
    """LPIPS, NIQE and `runtime.metrics.grid_codes` of one image; less is better."""

    lpips: float
    niqe: float | None
    """None for images that are too small or too flat (`train.niqe`)."""
    grid_codes: float


class PerceptualMeter:
    """Measures all scores of 8-bit images."""

    def __init__(self, weights: str | Path | None = None) -> None:
        """Load the weights of LPIPS from a file, or from where `python -m train.lpips_weights` put them.

        Raises UsageError if they cannot be loaded.
        """
        self._lpips = Lpips(weights, channel_order="BGR")

    def measure(self, image: Image, reference: Image) -> PerceptualScore:
        """Compare an image with its ground truth, uint8[H, W, 3] BGR each; raises UsageError for small images."""
        height, width = image.shape[:2]
        if min(height, width) < GRID_MIN_PX:
            hint = "leave out --perceptual"
            raise UsageError(f"--perceptual needs {GRID_MIN_PX} pixels a side, got {width}x{height}", hint=hint)
        with torch.inference_mode():
            batches = (torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255 for pixels in (image, reference))
            distance = float(self._lpips(*batches))
        return PerceptualScore(lpips=distance, niqe=niqe(image), grid_codes=grid_codes(image))
