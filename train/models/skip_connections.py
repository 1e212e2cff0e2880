"""Attention on skip connections, and dense skip connections."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_MIN_WIDTH = 8


class AttentionGate(nn.Module):
    """A number between 0 and 1 for each position, by which a skip connection is multiplied.

    Oktay et al. 2018, "Attention U-Net", section 2.1: the number is computed from the skip connection and from the
    decoder's features, with 1x1 convolutions alone, so that it does not depend on the rest of the frame.
    """

    def __init__(self, skip: int, decoder: int) -> None:
        """`skip`, `decoder`: numbers of channels of the skip connection and of the decoder's features."""
        super().__init__()
        width = max(_MIN_WIDTH, skip // 2)
        self.skip = nn.Conv2d(skip, width, 1)
        self.decoder = nn.Conv2d(decoder, width, 1, bias=False)
        self.gate = nn.Conv2d(width, 1, 1)

    def forward(self, skip: Tensor, features: Tensor) -> Tensor:
        """Weigh float32[N, skip, H, W]; `features`: float32[N, decoder, H, W]."""
        seen = F.relu(self.skip(skip) + self.decoder(features))
        weighed: Tensor = skip * torch.sigmoid(self.gate(seen))
        return weighed


class DenseSkips(nn.Module):
    """Skip connections that also carry what lower resolutions know (Zhou et al. 2018, "UNet++", section 3.1).

    Between an encoder's map and the decoder lie nodes: 3x3 convolutions with ReLU of all maps before them at the same
    resolution and of the enlarged one of half the resolution. The smallest map has no node, the next one has one, and
    so on.
    """

    def __init__(self, channels: Sequence[int], widths: Sequence[int]) -> None:
        """`channels`, `widths`: numbers of channels of the maps and of their nodes, from the largest map on."""
        super().__init__()
        self.channels = [
            own + width * number
            for own, width, number in zip(channels, widths, reversed(range(len(channels))), strict=True)
        ]
        """Numbers of channels of the results."""
        self.nodes = nn.ModuleList()
        for column in range(1, len(channels)):
            for level in range(len(channels) - column):
                same = channels[level] + widths[level] * (column - 1)
                lower = channels[level + 1] if column == 1 else widths[level + 1]
                self.nodes.append(nn.Conv2d(same + lower, widths[level], 3, padding=1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return each map with the outputs of its nodes behind it; `maps`: from the largest, each half as large."""
        rows = [[own] for own in maps]
        nodes = iter(self.nodes)
        for column in range(1, len(maps)):
            for level in range(len(maps) - column):
                inputs = [*rows[level], enlarge(rows[level + 1][column - 1])]
                rows[level].append(F.relu(next(nodes)(torch.cat(inputs, dim=1))))
        return [torch.cat(row, dim=1) for row in rows]


def enlarge(x: Tensor) -> Tensor:
    """Enlarge a map bilinearly: float32[N, C, H, W] -> float32[N, C, 2 H, 2 W]."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
