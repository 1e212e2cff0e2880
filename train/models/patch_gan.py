"""`patch_gan`: the discriminator, which judges overlapping patches rather than whole pictures."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

Normalisation = Literal["batch", "instance", "none"]
LEAST_PX = 64
"""The narrowest picture that gives at least one patch."""


class PatchGan(nn.Module):
    """float32[N, 3, H, W] -> float32[N, 1, H/16 - 3, W/16 - 3], one judgement a patch of 94 pixels.

    Listing 2 of the two-stage paper (PatchGAN: Isola et al. 2017): strides of two, batch
    normalisation after all convolutions but the first and last, leaky ReLU. `sigmoid` ends it
    with probabilities, as there; without it come logits. `normalisation`: WGAN-GP needs one
    that does not mix the pictures of a batch (Gulrajani et al. 2017, section 4).
    """

    def __init__(self, *, sigmoid: bool = True, normalisation: Normalisation = "batch") -> None:
        super().__init__()
        if normalisation not in get_args(Normalisation):
            raise ValueError(f"normalisation must be one of {', '.join(get_args(Normalisation))}, got {normalisation}")
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
        for width in (64, 128, 256):
            layers.append(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1))
            if normalisation == "batch":
                layers.append(nn.BatchNorm2d(2 * width))
            elif normalisation == "instance":
                layers.append(nn.InstanceNorm2d(2 * width, affine=True))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
        layers.append(nn.Conv2d(512, 1, 4))
        self.model = nn.Sequential(*layers)
        self.sigmoid = sigmoid

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.model(pictures)
        # In half precision a probability soon rounds to 1, whose logarithm's gradient is no number.
        return torch.sigmoid(logits.float()) if self.sigmoid else logits
