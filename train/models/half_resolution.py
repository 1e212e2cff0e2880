"""Any generator at half the resolution: a quarter of the cost, and twice the reach."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from train.models.base import Generator, patches_from_pixels, pixels_from_patches


class HalfResolution(Generator):
    """A generator that restores the image reduced by two; its residual is enlarged and added to the whole image.

    Both steps are convolutions of patches with fixed weights, so that an engine quantises them like any other. Pixels
    are reduced by the mean of 2x2 and enlarged bilinearly.
    """

    reduce: Tensor
    enlarge: Tensor

    def __init__(self, generator: Generator) -> None:
        """`generator`: used as it is, with its weights."""
        super().__init__()
        self.generator = generator
        # The contract's class variables depend on the generator here.
        self.channel_order, self.pixel_range = generator.channel_order, generator.pixel_range  # type: ignore[misc]
        self.patch_px = 2 * generator.patch_px  # type: ignore[misc]
        self.multiple_of = 2 * generator.multiple_of
        for name, make in (("reduce", reduction_kernel), ("enlarge", enlargement_kernel)):
            self.register_buffer(name, make(generator.patch_px), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return pixels_from_patches(self.core(patches_from_pixels(x, self.patch_px)), self.patch_px)

    def compute_residual(self, patches: Tensor) -> Tensor:  # [N, 12 P^2, H/2P, W/2P] -> the same
        reduced = F.conv2d(patches, self.reduce)  # [N, 3 P^2, H/2P, W/2P]
        return F.conv2d(self.generator.compute_residual(reduced), self.enlarge, padding=1)

    def core(self, x: Tensor) -> Tensor:
        return x + self.compute_residual(x)


def reduction_kernel(patch_px: int) -> Tensor:
    """Return the convolution from patches of 2P x 2P pixels to patches of P x P means: float32[3 P^2, 12 P^2, 1, 1]."""
    pixels = _pixels_of_channels(2 * patch_px)
    means = F.avg_pool2d(pixels, 2)  # [12 P^2, 3, P, P]
    return patches_from_pixels(means, patch_px).flatten(1).T[:, :, None, None].contiguous()


def enlargement_kernel(patch_px: int) -> Tensor:
    """Return the convolution from patches of P x P pixels to bilinear ones of 2P x 2P: float32[12 P^2, 3 P^2, 3, 3]."""
    centre = slice(patch_px, 2 * patch_px)
    pixels = torch.zeros(3 * patch_px**2, 3, 3 * patch_px, 3 * patch_px)
    pixels[:, :, centre, centre] = _pixels_of_channels(patch_px)
    enlarged = F.interpolate(pixels, scale_factor=2, mode="bilinear", align_corners=False)  # [3 P^2, 3, 6 P, 6 P]
    patches = patches_from_pixels(enlarged, 2 * patch_px)  # [3 P^2, 12 P^2, 3, 3]: patches that each channel reaches
    return patches.transpose(0, 1).flip(2, 3).contiguous()


def _pixels_of_channels(patch_px: int) -> Tensor:
    """Return for each channel of a patch the patch in which it alone is 1: float32[3 P^2, 3, P, P]."""
    channels = 3 * patch_px**2
    return pixels_from_patches(torch.eye(channels)[:, :, None, None], patch_px)
