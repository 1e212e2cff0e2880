"""Losses that compare restored images with others, float32[N, C, H, W]; each is a scalar, the mean over the batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from train.config import LossConfig
from train.training.lpips import Lpips

CHARBONNIER_EPSILON = 1e-3
GRID_PX = 4
_HARM_PX = 32
_GRID_WINDOW = 8
"""Side of the window in which a grid is looked for, in squares of `GRID_PX` pixels."""


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


def grid_l1(restored: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean absolute strength of what repeats every 4 pixels in the error, in squares of 32 pixels.

    Networks that compute squares of 4x4 pixels from one position of their features can lay a grid over an image. For
    each colour and each of the 16 positions in a square, the error is averaged over the 8x8 squares around; the loss is
    the distance of these means to their mean over the positions.
    """
    error = restored - sharp
    height, width = (side - side % GRID_PX for side in error.shape[2:])
    positions = F.pixel_unshuffle(error[:, :, :height, :width], GRID_PX)  # [N, 16 C, H/4, W/4]
    window = (min(_GRID_WINDOW, height // GRID_PX), min(_GRID_WINDOW, width // GRID_PX))
    means = F.avg_pool2d(positions, window, stride=tuple(max(1, side // 2) for side in window))
    by_colour = means.reshape(len(means), -1, GRID_PX**2, *means.shape[2:])
    strength: Tensor = (by_colour - by_colour.mean(dim=2, keepdim=True)).abs().mean()
    return strength


def harm(restored: Tensor, blurred: Tensor, sharp: Tensor) -> Tensor:
    """Return the mean of max(0, e - b) over squares of 32 pixels, with the RMS errors e of `restored`, b of `blurred`.

    A mean over all pixels hides squares that get worse if others get better. This loss counts only squares that get
    worse, so that a network learns to change little where it cannot restore. At the right and bottom border, squares
    are what is left of the image. float32[N, 3, H, W] in [0, 1]; 1e-6 is added to each mean square, so that its root
    has a gradient at 0.
    """

    def measure_errors(image: Tensor) -> Tensor:
        squared = F.avg_pool2d((image - sharp).square().mean(dim=1, keepdim=True), _HARM_PX, ceil_mode=True)
        return (squared + CHARBONNIER_EPSILON**2).sqrt()

    return F.relu(measure_errors(restored) - measure_errors(blurred)).mean()


def attention_distance(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Return the squared distance of two attention maps (Zagoruyko and Komodakis 2017, equation 2).

    float32[N, C, H, W] and float32[N, D, H, W]. A map is the mean square over the channels, scaled to unit length over
    all positions, so that networks with different numbers of channels can be compared.
    """
    own, teacher = (F.normalize(maps.float().square().mean(dim=1).flatten(1)) for maps in (features, teacher_features))
    return (own - teacher).square().sum(dim=1).mean()


def _lpips_at_random_offset(lpips: Lpips, restored: Tensor, sharp: Tensor) -> Tensor:
    """Return LPIPS; where gradients are computed, of all but 3 rows and columns, at random at the borders.

    The first convolution of AlexNet looks at every 4th position only. With the same positions in each step, its
    gradient would differ between them and teach a grid (compare Kettunen et al. 2019, E-LPIPS).
    """
    if torch.is_grad_enabled():
        top, left = torch.randint(GRID_PX, (2,)).tolist()
        height, width = (side - GRID_PX + 1 for side in sharp.shape[2:])
        restored, sharp = (images[:, :, top : top + height, left : left + width] for images in (restored, sharp))
    distance: Tensor = lpips(restored, sharp)
    return distance


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
            "grid_l1": grid_l1,
        }
        if config.lpips:
            assert lpips is not None
            losses["lpips"] = partial(_lpips_at_random_offset, lpips)
        weights = {name: getattr(config, name) for name in losses}
        self._terms = {name: (weights[name], loss) for name, loss in losses.items() if weights[name]}
        self.names = tuple(f"{name}_loss" for name in self._terms)
        """Names of the losses in the log."""

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        return self.compute(restored, sharp)[0]

    def compute(self, restored: Tensor, sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum, and each of the losses `names` without its weight."""
        total, losses = restored.new_zeros(()), {}
        for name, (weight, loss) in zip(self.names, self._terms.values(), strict=True):
            losses[name] = loss(restored, sharp)
            total = total + weight * losses[name]
        return total, losses
