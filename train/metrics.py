"""PSNR and SSIM of restored images, on the 8-bit values that a viewer sees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from runtime.metrics import GRID_MIN_PX, IDENTICAL_DB, grid_codes, psnr_db, ssim
from train.data.blur import Image


@dataclass(frozen=True)
class Similarity:
    """Similarity of an image to its ground truth."""

    psnr_db: float
    """At most `runtime.metrics.IDENTICAL_DB`, which stands for equal images."""
    ssim: float


@dataclass(frozen=True)
class Score:
    """One test image: the similarity of the blurred and of the restored image to the sharp one."""

    image: str
    """Path below the folder of the data."""
    blurred_psnr_db: float
    restored_psnr_db: float
    blurred_ssim: float
    restored_ssim: float
    blurred_lpips: float | None = None
    restored_lpips: float | None = None
    blurred_niqe: float | None = None
    restored_niqe: float | None = None
    blurred_grid_codes: float | None = None
    restored_grid_codes: float | None = None
    """These six are measured only if they are asked for, NIQE only where it can be."""

    @property
    def gain_db(self) -> float:
        """PSNR of the restored image minus that of the blurred one, in dB."""
        return self.restored_psnr_db - self.blurred_psnr_db


def measure_similarity(image: Image, reference: Image) -> Similarity:
    """Compare two uint8[H, W, 3] images of at least 11x11 pixels."""
    return Similarity(min(psnr_db(image, reference), IDENTICAL_DB), ssim(image, reference))


def measure_batch(images: Tensor, references: Tensor) -> list[Similarity]:
    """Compare the images of two batches, float32[N, 3, H, W] in [0, 1] each, after rounding to 8 bits."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # OpenCV and NumPy release Python's lock
        return list(pool.map(measure_similarity, _to_images(images), _to_images(references)))


def measure_grids(images: Tensor) -> list[float]:
    """Return `grid_codes` of the images of a batch, float32[N, 3, H, W] in [0, 1]; none where they are too small."""
    return [grid_codes(image) for image in _to_images(images)] if min(images.shape[2:]) >= GRID_MIN_PX else []


def _to_images(batch: Tensor) -> Sequence[Image]:
    codes = batch.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return list(codes.permute(0, 2, 3, 1).contiguous().cpu().numpy())
