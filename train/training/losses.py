"""Losses. Images are float32[N, C, H, W]; each loss is a scalar, the mean over the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from train.config import LossConfig
from train.training.lpips import Lpips

AdversarialKind = Literal["bce", "bce_logits", "wgan_gp"]
CHARBONNIER_EPSILON = 1e-3
GRADIENT_PENALTY = 10.0
"""Weight of the gradient penalty of WGAN-GP, as in its paper."""


def charbonnier(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean of sqrt(d^2 + 1e-6), a smooth L1 loss (Charbonnier et al. 1994; Lai et al. 2017)."""
    return ((restored - sharp).square() + CHARBONNIER_EPSILON**2).sqrt().mean()


def ssim_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return 1 - SSIM for images in [0, 1] (Wang et al. 2004): 11x11 Gaussian of sigma 1.5, K1 0.01, K2 0.03.

    It mirrors the border and averages all positions (torchmetrics), and it has a gradient; `runtime.metrics.ssim`,
    which is reported, averages the positions whose window lies inside the image.
    """
    similarity = structural_similarity_index_measure(restored, sharp, data_range=1.0)
    assert isinstance(similarity, Tensor)
    return 1 - similarity


def multi_scale_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the sum of the L1 losses of both images reduced bilinearly by 2 and by 4 (DeblurGAN-v2, section V)."""
    total = restored.new_zeros(())
    for factor in (2, 4):
        size = (max(1, restored.shape[2] // factor), max(1, restored.shape[3] // factor))
        smaller, smaller_sharp = (
            F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (restored, sharp)
        )
        total = total + F.l1_loss(smaller, smaller_sharp)
    return total


def fft_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean absolute difference of the real and imaginary parts of both spectra (Cho et al. 2021, MIMO-UNet).

    The transform is orthonormal, so that the weight of the loss does not depend on the size of the images.
    """
    difference = torch.fft.fft2(restored - sharp, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def attention_distance(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the squared distance of two attention maps (Zagoruyko and Komodakis 2017, equation 2).

    float32[N, C, H, W] and float32[N, D, H, W]. A map is the mean square over the channels, scaled to unit length over
    all positions, so that networks with different numbers of channels can be compared.
    """
    own, teacher = (F.normalize(maps.float().square().mean(dim=1).flatten(1)) for maps in (features, teacher_features))
    return (own - teacher).square().sum(dim=1).mean()


class ContentLoss(nn.Module):
    """Weighted sum of all losses that compare a restored image with the sharp one, in [0, 1]."""

    def __init__(self, config: LossConfig, *, lpips: Lpips | None = None) -> None:
        """`lpips`: the distance for `config.lpips`, in the channel order of the images; else only kept."""
        super().__init__()
        self.lpips = lpips
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mse": F.mse_loss,
            "l1": F.l1_loss,
            "charbonnier": charbonnier,
            "ssim": ssim_loss,
            "multi_scale_l1": multi_scale_l1,
            "fft_l1": fft_l1,
        }
        if config.lpips:
            assert lpips is not None
            losses["lpips"] = lpips
        self.terms = [(getattr(config, name), loss) for name, loss in losses.items() if getattr(config, name)]

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        total = restored.new_zeros(())
        for weight, loss in self.terms:
            total = total + weight * loss(restored, sharp)
        return total


def adversarial_loss(outputs: Tensor, kind: AdversarialKind) -> Tensor:
    """Return the loss of the generator for the discriminator outputs of its images, float32[N, 1, H, W].

    `bce`: cross-entropy of probabilities with 1; `bce_logits`: of logits with 1; `wgan_gp`: minus the mean.
    """
    if kind == "wgan_gp":
        return -outputs.mean()
    return _cross_entropy(outputs, 1.0, kind)


def discriminator_loss(real: Tensor, fake: Tensor, kind: AdversarialKind) -> Tensor:
    """Return the loss of the discriminator for its outputs of sharp (real) and restored (fake) images.

    `bce`, `bce_logits`: mean of the cross-entropies. `wgan_gp`: difference of the means (Arjovsky et al. 2017), without
    `gradient_penalty`.
    """
    if kind == "wgan_gp":
        return fake.mean() - real.mean()
    return (_cross_entropy(real, 1.0, kind) + _cross_entropy(fake, 0.0, kind)) / 2


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return 10 times the mean of (|gradient| - 1)^2 at random points between real and fake images.

    Gulrajani et al. 2017, equation 3; the discriminator outputs of all patches of an image are averaged.
    """
    between = torch.lerp(fake, real, torch.rand(len(real), 1, 1, 1, device=real.device)).requires_grad_()
    outputs = discriminator(between).float().mean(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad(outputs.sum(), between, create_graph=True)
    penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return GRADIENT_PENALTY * penalty


def _cross_entropy(outputs: Tensor, label: float, kind: AdversarialKind) -> Tensor:
    if not torch.isfinite(outputs).all():
        return outputs.mean()  # NaN, which the step skips; torch's own function would end the process
    loss = F.binary_cross_entropy if kind == "bce" else F.binary_cross_entropy_with_logits
    mean: Tensor = loss(outputs, torch.full_like(outputs, label))
    return mean
