"""`patch_gan`: a discriminator that has one output for each of many overlapping patches of an image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from train.models.discriminator import Discriminator, normalize_weights

Normalisation = Literal["batch", "instance", "none"]
MIN_IMAGE_PX = 64
"""Smallest width and height of an image, which gives one patch."""


class PatchGan(Discriminator):
    """float32[N, 3, H, W] -> [float32[N, 1, H/16 - 3, W/16 - 3]], one output for each patch of 94x94 pixels.

    Listing 2 of the two-stage paper (PatchGAN: Isola et al. 2017): convolutions of stride 2, batch normalisation after
    all of them but the first and the last, leaky ReLU. With `sigmoid` the outputs are probabilities that the patch is
    sharp, as in the paper; without it, logits. `normalisation`: WGAN-GP needs one that does not mix the images of a
    batch (Gulrajani et al. 2017, section 4). `width`: number of channels of the first convolution, 64 in the paper;
    each further one has twice as many. `spectral_norm`: see `normalize_weights`.
    """

    def __init__(
        self,
        *,
        sigmoid: bool = True,
        normalisation: Normalisation = "batch",
        width: int = 64,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        if normalisation not in get_args(Normalisation):
            raise ValueError(f"normalisation must be one of {', '.join(get_args(Normalisation))}, got {normalisation}")
        layers = self.create_layers(width, normalisation)
        if spectral_norm:
            layers = [normalize_weights(layer) if isinstance(layer, nn.Conv2d) else layer for layer in layers]
        self.model = nn.Sequential(*layers)
        self.sigmoid = sigmoid

    def create_layers(self, width: int, normalisation: Normalisation) -> list[nn.Module]:
        """Return the layers in order: [N, 3, H, W] -> [N, 512, H/16, W/16] -> [N, 1, H/16 - 3, W/16 - 3]."""
        widths = (3, width, 2 * width, 4 * width, 8 * width)
        return [*create_halving_layers(widths, normalisation), nn.Conv2d(8 * width, 1, 4)]

    def compute_features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        features, x = [], images
        for layer in self.model:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                features.append(x)
        # In half precision a probability soon rounds to 1, and the gradient of its logarithm becomes NaN.
        return [torch.sigmoid(x.float()) if self.sigmoid else x], features


def create_halving_layers(widths: Sequence[int], normalisation: Normalisation) -> list[nn.Module]:
    """Return convolutions of stride 2 with leaky ReLU, normalised but for the first.

    `widths`: numbers of channels of the image and of each convolution.
    """
    layers: list[nn.Module] = []
    for below, own in pairwise(widths):
        layers.append(nn.Conv2d(below, own, 4, stride=2, padding=1))
        if len(layers) > 1 and normalisation == "batch":
            layers.append(nn.BatchNorm2d(own))
        elif len(layers) > 1 and normalisation == "instance":
            layers.append(nn.InstanceNorm2d(own, affine=True))
        layers.append(nn.LeakyReLU(0.2, inplace=True))
    return layers
