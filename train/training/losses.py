"""Losses. Pictures are float32[N, C, H, W]; each loss is a scalar, a mean over the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from train.config import LossConfig
from train.training.lpips import Lpips

CHARBONNIER_EPSILON = 1e-3
GRADIENT_PENALTY = 10.0
"""Weight of WGAN-GP's penalty, as in its paper."""


def charbonnier(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 1e-6), a smooth L1 (Charbonnier et al. 1994; Lai et al. 2017)."""
    return ((restored - sharp).square() + CHARBONNIER_EPSILON**2).sqrt().mean()


def ssim_loss(restored: Tensor, sharp: Tensor) -> Tensor:
    """1 - SSIM for pictures in [0, 1] (Wang et al. 2004): 11x11 Gaussian of sigma 1.5, K 0.01 and 0.03.

    torchmetrics mirrors the border and averages all positions.
    """
    similarity: Tensor = structural_similarity_index_measure(restored, sharp, data_range=1.0)
    return 1 - similarity


def multi_scale_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Sum of the L1 losses of both pictures reduced bilinearly by 2 and by 4 (DeblurGAN-v2 paper, section V)."""
    total = restored.new_zeros(())
    for factor in (2, 4):
        size = (max(1, restored.shape[2] // factor), max(1, restored.shape[3] // factor))
        smaller = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (restored, sharp))
        total = total + F.l1_loss(*smaller)
    return total


def fft_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Mean absolute difference of the real and imaginary parts of both spectra (Cho et al. 2021, MIMO-UNet).

    The transform is the orthonormal one, so that the weight does not depend on the size.
    """
    difference = torch.fft.fft2(restored - sharp, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def attention_distance(features: Tensor, taught: Tensor) -> Tensor:
    """Squared distance of two attention maps, a mean over the batch (Zagoruyko and Komodakis 2017, equation 2).

    A map is the mean square over the channels, of unit length over all places, so that networks of any width
    compare. float[N, C, H, W] and float[N, D, H, W].
    """
    maps = (F.normalize(each.float().square().mean(dim=1).flatten(1)) for each in (features, taught))
    difference = torch.sub(*maps)
    return difference.square().sum(dim=1).mean()


class ContentLoss(nn.Module):
    """The weighted sum of all losses that compare a restored picture with the sharp one, in [0, 1]."""

    def __init__(self, config: LossConfig) -> None:
        super().__init__()
        self.lpips = Lpips(config.lpips_weights) if config.lpips and config.lpips_weights else None
        losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "mse": F.mse_loss,
            "l1": F.l1_loss,
            "charbonnier": charbonnier,
            "ssim": ssim_loss,
            "multi_scale_l1": multi_scale_l1,
            "fft_l1": fft_l1,
        }
        if self.lpips:
            losses["lpips"] = self.lpips
        self.terms = [(getattr(config, name), loss) for name, loss in losses.items() if getattr(config, name)]

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        total = restored.new_zeros(())
        for weight, loss in self.terms:
            total = total + weight * loss(restored, sharp)
        return total


def adversarial_loss(judgements: Tensor, kind: str) -> Tensor:
    """What the generator pays for being found out, from the discriminator's view of its pictures.

    `bce`: cross-entropy of probabilities with 1; `bce_logits`: of logits; `wgan_gp`: minus the mean.
    """
    if kind == "wgan_gp":
        return -judgements.mean()
    return _cross_entropy(judgements, 1.0, kind)


def discriminator_loss(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """What the discriminator pays: the mean of its losses on real and fake pictures.

    `wgan_gp`: the difference of the means (Arjovsky et al. 2017), to which `gradient_penalty` is added.
    """
    if kind == "wgan_gp":
        return fake.mean() - real.mean()
    return (_cross_entropy(real, 1.0, kind) + _cross_entropy(fake, 0.0, kind)) / 2


def gradient_penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """10 times the mean of (|gradient| - 1)^2 at random points between real and fake pictures.

    Gulrajani et al. 2017, equation 3; the judgements of all patches of a picture are averaged.
    """
    between = torch.lerp(fake, real, torch.rand(len(real), 1, 1, 1, device=real.device)).requires_grad_()
    judgements = discriminator(between).float().mean(dim=(1, 2, 3))
    (gradient,) = torch.autograd.grad(judgements.sum(), between, create_graph=True)
    return GRADIENT_PENALTY * (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def _cross_entropy(judgements: Tensor, truth: float, kind: str) -> Tensor:
    if not torch.isfinite(judgements).all():
        return judgements.mean()  # torch's own would end the process where NaN can be survived
    loss = F.binary_cross_entropy if kind == "bce" else F.binary_cross_entropy_with_logits
    return loss(judgements, torch.full_like(judgements, truth))
