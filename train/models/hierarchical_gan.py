"""`hierarchical`: a discriminator of patches and one of the whole image."""

from __future__ import annotations

from torch import Tensor, nn

from train.models.discriminator import Discriminator
from train.models.patch_gan import Normalisation, PatchGan, create_halving_layers

MIN_IMAGE_PX = 128
"""Smallest width and height of an image: 2x2 positions are left, as instance normalisation needs more than one."""


class GlobalGan(PatchGan):
    """float32[N, 3, H, W] -> [float32[N, 1, 1, 1]], one output for the whole image.

    Six convolutions of stride 2, whose outputs see 190x190 pixels; the mean over all positions; and two layers on it,
    so that the output is not the mean of one for each patch. The options are those of `PatchGan`.
    """

    def create_layers(self, width: int, normalisation: Normalisation) -> list[nn.Module]:
        """Return the layers in order: [N, 3, H, W] -> [N, 512, H/64, W/64] -> [N, 1, 1, 1]."""
        top = 8 * width
        layers = create_halving_layers((3, width, 2 * width, 4 * width, top, top, top), normalisation)
        end = [nn.AdaptiveAvgPool2d(1), nn.Conv2d(top, top, 1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(top, 1, 1)]
        return [*layers, *end]


class HierarchicalGan(Discriminator):
    """float32[N, 3, H, W] -> the outputs for patches, and the one for the image.

    The abstract of the DeblurGAN-v2 paper names a hierarchical discriminator without describing it. Kupyn et al. 2019,
    section 3.2, have one for patches and one for the image, with own weights.
    """

    def __init__(self, patches: PatchGan, image: GlobalGan) -> None:
        super().__init__()
        self.patches, self.image = patches, image

    def compute_features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        outputs, features = self.patches.compute_features(images)
        image_output, image_features = self.image.compute_features(images)
        return outputs + image_output, features + image_features
