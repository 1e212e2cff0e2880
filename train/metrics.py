"""PSNR of batches in training; files and clips are scored by `benchmarks.quality`."""

from __future__ import annotations

import torch
from torch import Tensor


def psnr_db(restored: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image of a batch, in dB, on 8-bit rounded values.

    float32[N, C, H, W] in [0, 1] each -> float32[N]. The mean squared error runs over all
    channels and pixels of an image; equal images give inf.
    """
    error = (restored.clamp(0, 1).mul(255).round() - sharp.mul(255).round()).square().mean((1, 2, 3))
    return 10 * torch.log10(255**2 / error)
