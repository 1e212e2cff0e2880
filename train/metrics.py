"""PSNR and SSIM of batches, from torchmetrics, on the 8-bit values that a viewer would see."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

IDENTICAL_DB = 99.0
"""Stands for the infinite PSNR of equal pictures, in means and in files."""


@dataclass(frozen=True)
class Score:
    """One test picture: how near the blurred and the restored one are to the sharp one."""

    picture: str
    blurred_psnr_db: float
    restored_psnr_db: float
    blurred_ssim: float
    restored_ssim: float

    @property
    def gain_db(self) -> float:
        """How much nearer the restored picture is."""
        return self.restored_psnr_db - self.blurred_psnr_db


def psnr_db(restored: Tensor, sharp: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, in dB: float32[N, C, H, W] in [0, 1] -> float32[N]."""
    psnr = peak_signal_noise_ratio(_codes(restored), _codes(sharp), data_range=255.0, reduction="none", dim=(1, 2, 3))
    return psnr.clamp(max=IDENTICAL_DB)


def ssim(restored: Tensor, sharp: Tensor) -> Tensor:
    """Structural similarity of each picture (Wang et al. 2004): float32[N, C, H, W] in [0, 1] -> float32[N].

    The mean over channels and positions, the border mirrored; both sides at least 11 pixels.
    """
    similarity: Tensor = structural_similarity_index_measure(
        _codes(restored), _codes(sharp), data_range=255.0, reduction="none"
    )
    return similarity.reshape(-1)


def _codes(pictures: Tensor) -> Tensor:
    return pictures.detach().float().clamp(0, 1).mul(255).round()
