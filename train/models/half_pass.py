"""A pass of `edge` at half the resolution: twice the reach for a quarter of the cost, or less."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.channels import FIXED, Layer
from train.models.edge_levels import Trunk
from train.models.half_resolution import enlargement_kernel, reduction_kernel

_SHARE_WIDTH = 32
"""Channels of the features that the shares of both resolutions come from."""


class HalfPass(nn.Module):
    """A network at half the resolution, and the shares of both residuals in the result.

    At half the resolution the receptive field is twice as large, for long blur; short blur and detail need the full
    resolution. The shares, between 0 and 1 for each patch, are computed from the features of both.
    """

    reduce: Tensor
    split: Tensor
    enlarge: Tensor

    def __init__(
        self, channels: int, widths: Sequence[int], blocks: Sequence[int], *, full_widths: Sequence[int], patch_px: int
    ) -> None:
        """Create a pass.

        `channels`: of a patch, 48 or 24; `widths`, `blocks`: those of the network at half the resolution;
        `full_widths`: those at full resolution; `patch_px`: side of a patch.
        """
        super().__init__()
        self.trunk = Trunk(channels, widths, blocks)
        self.join = nn.Conv2d(widths[0], full_widths[1], 1)
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1)
        self.full_input = nn.Conv2d(full_widths[0], _SHARE_WIDTH, 2, stride=2)
        self.half_input = nn.Conv2d(widths[0], _SHARE_WIDTH, 3, padding=1)
        self.share = nn.Conv2d(_SHARE_WIDTH, 1 + 4, 3, padding=1)
        nn.init.zeros_(self.share.weight)  # both residuals begin with a share of a half
        nn.init.zeros_(self.share.bias)  # type: ignore[arg-type]  # it has a bias
        self.register_buffer("reduce", _halving_kernel(patch_px), persistent=False)
        self.register_buffer("split", _splitting_kernel(patch_px), persistent=False)
        self.register_buffer("enlarge", enlargement_kernel(patch_px // 2), persistent=False)

    def list_layers(self, prefix: str) -> list[Layer]:
        """Return the layers with their channels; those of the full resolution have the groups `1` and `1.1`."""
        own = "half"
        return [
            Layer(f"{prefix}trunk.head", (FIXED,), (own,)),
            *self.trunk.body.list_layers(f"{prefix}trunk.body.", own),
            Layer(f"{prefix}join", (own,), ("1.1",)),
            Layer(f"{prefix}tail", (own,), (FIXED,)),
            Layer(f"{prefix}full_input", ("1",), (FIXED,)),
            Layer(f"{prefix}half_input", (own,), (FIXED,)),
            Layer(f"{prefix}share", (FIXED,), (FIXED,)),
        ]

    def enlarge_residual(self, residual: Tensor) -> Tensor:
        """Enlarge a residual at half the resolution bilinearly: float32[N, 48, H/8, W/8] -> [N, 48, H/4, W/4].

        Patches of 4x4 pixels are split into four of 2x2 pixels first: enlarging those costs a quarter.
        """
        patches = F.pixel_shuffle(F.conv2d(residual, self.split), 2)  # [N, 12, H/4, W/4]
        return F.conv2d(patches, self.enlarge, padding=1)

    def compute_shares(self, features: Tensor, half_features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shares of the full and of half the resolution: float32[N, 1, H/4, W/4], [N, 1, H/8, W/8].

        `features`: float32[N, full_widths[0], H/4, W/4]; `half_features`: float32[N, widths[0], H/8, W/8].
        """
        seen = F.relu(self.full_input(features) + self.half_input(half_features))  # [N, C, H/8, W/8]
        shares = torch.sigmoid(self.share(seen))  # [N, 5, H/8, W/8]
        return F.pixel_shuffle(shares[:, 1:], 2), shares[:, :1]


def _halving_kernel(patch_px: int) -> Tensor:
    """Return the convolution from 2x2 patches to the patch of their image at half the resolution: [48, 48, 2, 2]."""
    kernel = reduction_kernel(patch_px)  # from one patch of twice the side
    split = kernel.reshape(len(kernel), 2, patch_px, 2, patch_px * 3)  # row and column of the patch, and within it
    return split.permute(0, 2, 4, 1, 3).reshape(len(kernel), -1, 2, 2).contiguous()


def _splitting_kernel(patch_px: int) -> Tensor:
    """Return a permutation of channels as a 1x1 convolution: [48, 48, 1, 1].

    `F.pixel_shuffle(x, 2)` then turns each patch of 4x4 pixels into 2x2 patches of 2x2 pixels. It is a convolution and
    no index, because the export merges it into the convolution before it, and it costs nothing there.
    """
    side = patch_px // 2
    channels = torch.arange(3 * patch_px**2).reshape(2, side, 2, side, 3)  # row and column of the patch, and within it
    order = channels.permute(1, 3, 4, 0, 2).flatten()
    return torch.eye(len(order))[order][:, :, None, None].contiguous()
