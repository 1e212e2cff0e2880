"""How good a generator is on held-out pictures, while it is being trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from train.metrics import psnr_db, ssim
from train.models import Generator, planes, restored_planes
from train.training.distributed import Ranks
from train.training.losses import ContentLoss

_NAMES = ("content_loss", "psnr_db", "ssim", "blurred_psnr_db", "blurred_ssim")


@torch.inference_mode()
def validate(
    generator: Generator, batches: Iterable[tuple[Tensor, Tensor]], *, content_loss: ContentLoss, ranks: Ranks
) -> dict[str, float]:
    """Means over the held-out pictures of all ranks: of the restored ones, and of the blurred as they are.

    `batches`: uint8[N, H, W, 3] BGR blurred and sharp. The generator is left in train mode.
    """
    generator.eval()
    sums = dict.fromkeys(("pictures", *_NAMES), 0.0)
    for batch in batches:
        blurred, sharp = (planes(frames.to(ranks.device), generator) for frames in batch)
        restored = restored_planes(generator, blurred, generator)
        sums["pictures"] += len(sharp)
        sums["content_loss"] += len(sharp) * float(content_loss(restored, sharp))
        for prefix, pictures in (("", restored), ("blurred_", blurred)):
            sums[f"{prefix}psnr_db"] += float(psnr_db(pictures, sharp).sum())
            sums[f"{prefix}ssim"] += float(ssim(pictures, sharp).sum())
    generator.train()
    sums = ranks.total(sums)
    return {name: sums[name] / sums["pictures"] for name in _NAMES}
