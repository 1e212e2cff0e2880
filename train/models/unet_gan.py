"""`unet`: a discriminator with one output for each pixel."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.discriminator import Discriminator, normalize_weights

MIN_IMAGE_PX = 8
"""Smallest width and height of an image: one pixel is left after three strides."""


class UnetGan(Discriminator):
    """float32[N, 3, H, W] -> [float32[N, 1, H, W]].

    The discriminator of Real-ESRGAN (Wang et al. 2021, section 3.3; after Schoenfeld et al. 2020): three convolutions
    of stride 2, three of stride 1 after bilinear enlargement, with additions between equal sizes, and three at full
    resolution; spectral normalisation of all but the first and the last. `width`: number of channels at full
    resolution. `sigmoid`: whether the outputs are probabilities; else logits.
    """

    def __init__(self, *, sigmoid: bool = True, width: int = 64) -> None:
        super().__init__()
        self.sigmoid = sigmoid
        self.first = nn.Conv2d(3, width, 3, padding=1)
        widths = [width, 2 * width, 4 * width, 8 * width]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(
            normalize_weights(nn.Conv2d(own, below, 4, stride=2, padding=1, bias=False)) for own, below in pairs
        )
        self.up = nn.ModuleList(
            normalize_weights(nn.Conv2d(below, own, 3, padding=1, bias=False)) for own, below in reversed(pairs)
        )
        self.full = nn.ModuleList(normalize_weights(nn.Conv2d(width, width, 3, padding=1, bias=False)) for _ in "ab")
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def compute_features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        x = F.leaky_relu(self.first(images), 0.2)
        skips, features = [x], []
        for layer in self.down:  # [N, 64, H, W] -> [N, 512, H/8, W/8]
            x = F.leaky_relu(layer(x), 0.2)
            skips.append(x)
        skips.pop()
        for layer in self.up:  # [N, 512, H/8, W/8] -> [N, 64, H, W]
            skip = skips.pop()
            features.append(x)
            x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=False)
            x = F.leaky_relu(layer(x), 0.2) + skip
        for layer in self.full:
            x = F.leaky_relu(layer(x), 0.2)
        features.append(x)
        output = self.last(x)
        return [torch.sigmoid(output.float()) if self.sigmoid else output], features
