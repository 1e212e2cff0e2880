"""The discriminator in a training step: its own losses, and those that it gives the generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from train.config import Recipe
from train.gan_config import GanConfig
from train.models import hierarchical_gan, patch_gan, unet_gan
from train.models.discriminator import Discriminator
from train.models.hierarchical_gan import GlobalGan, HierarchicalGan
from train.models.multi_scale_gan import MultiScaleGan
from train.models.patch_gan import PatchGan
from train.models.unet_gan import UnetGan
from train.training.adversarial import (
    RELATIVISTIC,
    adversarial_factor,
    adversarial_loss,
    discriminator_loss,
    feature_distance,
    gradient_penalty,
    mean_output,
    r1_penalty,
    shift_images,
)


def create_discriminator(recipe: Recipe) -> Discriminator:
    """Return the discriminator of a recipe, with random weights."""
    gan, sigmoid = recipe.gan, recipe.losses.adversarial_kind == "bce"
    if gan.discriminator == "unet":
        return UnetGan(sigmoid=sigmoid, width=gan.width)

    options: dict[str, Any] = {
        "sigmoid": sigmoid,
        "normalisation": recipe.normalisation,
        "width": gan.width,
        "spectral_norm": gan.spectral_norm,
    }
    if gan.discriminator == "hierarchical":
        return HierarchicalGan(PatchGan(**options), GlobalGan(**options))
    if gan.discriminator == "multi_scale":
        return MultiScaleGan([PatchGan(**options) for _ in range(gan.scales)])
    return PatchGan(**options)


def min_discriminator_px(gan: GanConfig) -> int:
    """Return the smallest width and height of the images that the discriminator takes."""
    if gan.discriminator == "unet":
        return unet_gan.MIN_IMAGE_PX
    if gan.discriminator == "hierarchical":
        return hierarchical_gan.MIN_IMAGE_PX
    return patch_gan.MIN_IMAGE_PX * (2 ** (gan.scales - 1) if gan.discriminator == "multi_scale" else 1)


class Adversary:
    """A discriminator with the losses of a recipe. Images are float32[N, 3, H, W] in the generator's pixel range."""

    def __init__(
        self, recipe: Recipe, discriminator: nn.Module, *, autocast: Callable[[Tensor], torch.autocast]
    ) -> None:
        """Prepare the losses.

        `discriminator`: a `Discriminator`, perhaps inside DistributedDataParallel. `autocast`: returns the context in
        which it computes; losses and penalties are computed in float32.
        """
        self._gan, self._weight, self._kind = recipe.gan, recipe.losses.adversarial, recipe.losses.adversarial_kind
        self._wrapped, self._autocast = discriminator, autocast
        is_wrapped = isinstance(discriminator, nn.parallel.DistributedDataParallel)
        bare = discriminator.module if is_wrapped else discriminator
        assert isinstance(bare, Discriminator)
        self._bare = bare

    def takes_part(self, completed: int) -> bool:
        """Return whether the step after `completed` ones has a discriminator."""
        return adversarial_factor(self._gan, completed) is not None

    def compute_own_losses(self, real: Tensor, fake: Tensor, *, completed: int) -> dict[str, Tensor]:
        """Return `discriminator_loss`, which has the penalties in it, and the mean outputs for both kinds of images."""
        real, fake = self._shift(real, fake)
        with self._autocast(real):
            maps_of_both = [self._wrapped(images) for images in (real, fake)]
        outputs = [[maps.float() for maps in maps_of_one] for maps_of_one in maps_of_both]
        loss = discriminator_loss(outputs[0], outputs[1], self._kind, label_smoothing=self._gan.label_smoothing)
        numbers = {"real_output": mean_output(outputs[0]), "fake_output": mean_output(outputs[1])}
        if self._kind == "wgan_gp":
            numbers["penalty"] = gradient_penalty(self._bare, real, fake)
        elif self._gan.r1 and completed % self._gan.r1_every_steps == 0:
            numbers["penalty"] = self._gan.r1 * self._gan.r1_every_steps * r1_penalty(self._bare, real)
        return numbers | {"discriminator_loss": loss + numbers.get("penalty", 0)}

    def compute_losses_of_generator(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """Return `adversarial_loss` and perhaps `feature_matching_loss`, without their weights.

        The weights of the discriminator, used without wrapper, get no gradient.
        """
        real, fake = self._shift(real, fake)
        self._bare.requires_grad_(requires_grad=False)
        outputs, features = self._look(fake)
        real_outputs, real_features = outputs, features
        if self._kind in RELATIVISTIC or self._gan.feature_matching:
            with torch.no_grad():
                real_outputs, real_features = self._look(real)
        self._bare.requires_grad_()
        losses = {"adversarial_loss": adversarial_loss(outputs, self._kind, real=real_outputs)}
        if self._gan.feature_matching:
            losses["feature_matching_loss"] = feature_distance(features, real_features)
        return losses

    def _look(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return outputs and features of the discriminator without its wrapper, in float32."""
        with self._autocast(images):
            outputs, features = self._bare.compute_features(images)
        return [x.float() for x in outputs], [x.float() for x in features]

    def weigh(self, losses: dict[str, Tensor], *, completed: int) -> Tensor:
        """Return the weighted sum of the losses of the generator in the step after `completed` ones."""
        total = self._weight * losses["adversarial_loss"]
        if "feature_matching_loss" in losses:
            total = total + self._gan.feature_matching * losses["feature_matching_loss"]
        return total * (adversarial_factor(self._gan, completed) or 0.0)

    def _shift(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Shift both images of a pair alike, so that the discriminator does not see where patches begin."""
        if not self._gan.shift_px:
            return real, fake
        shifted = shift_images(torch.cat((real, fake), dim=1), self._gan.shift_px)
        return shifted[:, :3], shifted[:, 3:]
