"""Weights of channels that depend on the frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_REDUCTION = 8


class ChannelAttention(nn.Module):
    """A factor between 0 and 2 for each channel, by which a map is multiplied: float32[N, C, H, W] -> the same.

    Hu et al. 2018, "Squeeze-and-Excitation Networks": the factors are computed from the means of all channels over the
    frame, by two layers. Theirs lie between 0 and 1; here they begin at 1, where the network is the one without them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // _REDUCTION, 1)
        self.restore = nn.Conv2d(channels // _REDUCTION, channels, 1)
        nn.init.zeros_(self.restore.weight)
        nn.init.zeros_(self.restore.bias)  # type: ignore[arg-type]  # it has a bias

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)  # [N, C, 1, 1]
        weighed: Tensor = x * (2 * torch.sigmoid(self.restore(F.relu(self.reduce(means)))))
        return weighed
