"""Validation: the loss and the image quality of a generator on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from train.metrics import measure_batch, measure_grids
from train.models import Generator, nchw_from_frames, restore_nchw
from train.training.distributed import Ranks
from train.training.loaders import Batch
from train.training.losses import ContentLoss


class ValidationScores(NamedTuple):
    """Means over the validation images; the fields are the names in `log.jsonl`, after `validation/`."""

    content_loss: float
    psnr_db: float
    ssim: float
    blurred_psnr_db: float
    """PSNR of the blurred images themselves, for comparison."""
    blurred_ssim: float
    lpips: float | None = None
    """None if the recipe does not need it."""
    grid_codes: float | None = None
    """`runtime.metrics.grid_codes`, where LPIPS is measured too, of images that are large enough; None without any."""


@torch.inference_mode()
def validate(
    generator: Generator,
    batches: Iterable[Batch],
    *,
    content_loss: ContentLoss,
    ranks: Ranks,
    autocast: Callable[[Tensor], torch.autocast],
) -> ValidationScores:
    """Return the means over the validation images of all processes. The generator is left in train mode.

    `autocast`: returns the context in which the generator computes, that of training.
    """
    generator.eval()
    lpips = content_loss.lpips
    sums = dict.fromkeys(("images", "grids", *ValidationScores._fields), 0.0)
    for batch in batches:
        blurred, sharp = (nchw_from_frames(frames.to(ranks.device), generator) for frames in batch)
        with autocast(blurred):
            restored = restore_nchw(generator, blurred, generator)
        sums["images"] += len(sharp)
        sums["content_loss"] += len(sharp) * float(content_loss(restored, sharp))
        if lpips:
            sums["lpips"] += len(sharp) * float(lpips(restored.clamp(0, 1), sharp))
            grids = measure_grids(restored)
            sums["grids"] += len(grids)
            sums["grid_codes"] += sum(grids)
        for prefix, images in (("", restored), ("blurred_", blurred)):
            similarities = measure_batch(images, sharp)
            sums[f"{prefix}psnr_db"] += sum(similarity.psnr_db for similarity in similarities)
            sums[f"{prefix}ssim"] += sum(similarity.ssim for similarity in similarities)
    generator.train()
    sums = ranks.sum(sums)
    counts = dict.fromkeys(ValidationScores._fields, sums["images"])
    counts |= {"lpips": sums["images"] if lpips else 0, "grid_codes": sums["grids"]}
    return ValidationScores(**{name: sums[name] / count for name, count in counts.items() if count})
