"""Adversarial losses and penalties. Outputs of a discriminator are lists of maps float32[N, 1, h, w]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from train.gan_config import AdversarialKind, GanConfig
from train.models.discriminator import Discriminator

GRADIENT_PENALTY = 10.0
"""Weight of the gradient penalty of WGAN-GP, as in its paper."""
RELATIVISTIC = ("ragan", "ragan_ls")
"""Losses of the generator that need the outputs of sharp images too."""


def adversarial_factor(gan: GanConfig, completed: int) -> float | None:
    """Return the factor of the adversarial loss and of feature matching in the step after `completed` ones.

    It rises linearly from `gan.start_step` on, during `gan.warmup_steps`, to 1. None before: there is no discriminator.
    """
    steps = completed - gan.start_step
    if steps < 0:
        return None
    return min(1.0, (steps + 1) / (gan.warmup_steps + 1))


def adversarial_loss(fake: list[Tensor], kind: AdversarialKind, *, real: list[Tensor] | None = None) -> Tensor:
    """Return the loss of the generator for the discriminator outputs of its images, the mean over the maps.

    `bce`: cross-entropy of probabilities with 1; `bce_logits`: of logits with 1 (Goodfellow et al. 2014, section 3);
    `wgan_gp`, `hinge`: minus the mean; `lsgan`: half of the squared distance to 1 (Mao et al. 2017, equation 9).
    `ragan` (Jolicoeur-Martineau 2018) and `ragan_ls` (Kupyn et al. 2019, DeblurGAN-v2) need `real`, the outputs of
    sharp images: restored images are to have larger outputs than the sharp images of the batch have on average, and
    the other way round.
    """
    if kind in RELATIVISTIC:
        assert real is not None
        return discriminator_loss(fake, real, kind)
    return torch.stack([_generator_loss(outputs, kind) for outputs in fake]).mean()


def discriminator_loss(
    real: list[Tensor], fake: list[Tensor], kind: AdversarialKind, *, label_smoothing: float = 0.0
) -> Tensor:
    """Return the loss of the discriminator for its outputs of sharp (real) and restored (fake) images.

    The mean over the maps. `bce`, `bce_logits`: mean of the cross-entropies. `wgan_gp`: difference of the means
    (Arjovsky et al. 2017), without `gradient_penalty`. `hinge`: Lim and Ye 2017; Miyato et al. 2018, equation 17.
    `lsgan`: Mao et al. 2017, equation 9. `ragan`, `ragan_ls`: cross-entropies and squares of the distance to the mean
    output of the other images, which are those of the batch of one process. `label_smoothing`: what the label of sharp
    images lacks to 1.
    """
    label = 1 - label_smoothing
    return torch.stack([_discriminator_loss(*maps, kind, label) for maps in zip(real, fake, strict=True)]).mean()


def gradient_penalty(discriminator: Discriminator, real: Tensor, fake: Tensor) -> Tensor:
    """Return 10 times the mean of (|gradient| - 1)^2 at random points between real and fake images.

    Gulrajani et al. 2017, equation 3; the discriminator outputs of all patches of an image are averaged.
    """
    between = torch.lerp(fake, real, torch.rand(len(real), 1, 1, 1, device=real.device))
    penalty: Tensor = (_gradient_norms(discriminator, between) - 1).square().mean()
    return GRADIENT_PENALTY * penalty


def r1_penalty(discriminator: Discriminator, real: Tensor) -> Tensor:
    """Return half of the mean of |gradient|^2 at sharp images (Mescheder et al. 2018, equation 9, without gamma).

    The discriminator outputs of all patches of an image are averaged.
    """
    return _gradient_norms(discriminator, real).square().mean() / 2


def feature_distance(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Return the mean over the layers of the L1 distances (Wang et al. 2018, pix2pixHD, equation 4)."""
    distances = [F.l1_loss(own, other) for own, other in zip(fake, real, strict=True)]
    return torch.stack(distances).mean()


def shift_images(images: Tensor, shift_px: float) -> Tensor:
    """Shift each image of a batch, float32[N, C, H, W], by up to `shift_px` pixels in each direction, at random.

    Shifts are fractions of pixels (bicubic interpolation); the border is mirrored. A channel holds the values of one
    shift, so that images stacked as channels move together.
    """
    if not shift_px:
        return images
    count, _, height, width = images.shape
    shifts = (2 * torch.rand(count, 2, device=images.device) - 1) * shift_px
    scale = torch.tensor((2 / width, 2 / height), device=images.device)
    matrices = torch.eye(2, 3, device=images.device).repeat(count, 1, 1)
    matrices[:, :, 2] = shifts * scale
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    shifted: Tensor = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return shifted


def mean_output(outputs: list[Tensor]) -> Tensor:
    """Return the mean of the discriminator outputs, over all maps alike."""
    return torch.stack([maps.mean() for maps in outputs]).mean()


def _generator_loss(fake: Tensor, kind: AdversarialKind) -> Tensor:
    if kind in {"wgan_gp", "hinge"}:
        return -fake.mean()
    if kind == "lsgan":
        return (fake - 1).square().mean() / 2
    return _cross_entropy(fake, 1.0, kind)


def _discriminator_loss(real: Tensor, fake: Tensor, kind: AdversarialKind, label: float) -> Tensor:
    if kind == "wgan_gp":
        return fake.mean() - real.mean()
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    if kind in RELATIVISTIC:
        real, fake = real - fake.mean(), fake - real.mean()
    if kind == "ragan_ls":
        return ((real - label).square().mean() + (fake + 1).square().mean()) / 2
    if kind == "lsgan":
        return ((real - label).square().mean() + fake.square().mean()) / 2
    return (_cross_entropy(real, label, kind) + _cross_entropy(fake, 0.0, kind)) / 2


def _gradient_norms(discriminator: Discriminator, images: Tensor) -> Tensor:
    """Return the length of the gradient of the mean output of each image, float32[N]."""
    images = images.detach().requires_grad_()
    outputs = torch.stack([maps.float().mean(dim=(1, 2, 3)) for maps in discriminator(images)]).mean(dim=0)
    (gradient,) = torch.autograd.grad(outputs.sum(), images, create_graph=True)
    norms: Tensor = gradient.flatten(1).norm(dim=1)
    return norms


def _cross_entropy(outputs: Tensor, label: float, kind: AdversarialKind) -> Tensor:
    if not torch.isfinite(outputs).all():
        return outputs.mean()  # NaN, which the step skips; torch's own function would end the process
    loss = F.binary_cross_entropy if kind == "bce" else F.binary_cross_entropy_with_logits
    mean: Tensor = loss(outputs, torch.full_like(outputs, label))
    return mean
