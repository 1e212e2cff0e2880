"""Blocks and levels of `edge`, the parts without colours and patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.channels import Layer


class PlainBlock(nn.Module):
    """relu(conv(relu(conv(x)))), each convolution initialised as the identity with a little noise.

    It trains like a block with a shortcut around each convolution (Zagoruyko and Komodakis 2017, DiracNets), but runs
    without one: in INT8, an addition costs a rounding and a pass over memory. float32[N, C, H, W] -> the same.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            for convolution in (self.conv1, self.conv2):
                convolution.weight.mul_(0.3)
                convolution.weight[:, :, 1, 1] += torch.eye(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class Level(nn.Module):
    """Blocks at one resolution, with the next lower level between them: float32[N, C, H, W] -> the same."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        """`widths`, `blocks`: numbers of channels and of blocks of this level and of those below."""
        super().__init__()
        width = widths[0]
        self.before = nn.Sequential(*(PlainBlock(width) for _ in range(blocks[0])))
        self.lower = None
        if widths[1:]:
            self.down = nn.Conv2d(width, widths[1], 2, stride=2)
            self.lower = Level(widths[1:], blocks[1:])
            self.up = nn.Conv2d(widths[1], 4 * width, 1)
            self.after = nn.Sequential(*(PlainBlock(width) for _ in range(blocks[0])))

    def list_layers(self, prefix: str, group: str) -> list[Layer]:
        """Return the layers with their channels; `group`: the channels of this level."""
        layers = []
        for part in ("before", "after") if self.lower else ("before",):
            for index in range(len(self.before)):
                block = f"{prefix}{part}.{index}"
                layers.append(Layer(f"{block}.conv1", (group,), (block,)))
                layers.append(Layer(f"{block}.conv2", (block,), (group,)))
        if self.lower:
            below = f"{group}.1"
            layers.append(Layer(f"{prefix}down", (group,), (below,)))
            layers.append(Layer(f"{prefix}up", (below,), (group,), repeat=4))
            layers += self.lower.list_layers(f"{prefix}lower.", below)
        return layers

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return the features; `coarse`: features to be added to the level below, [N, its channels, H/2, W/2]."""
        x = self.before(x)  # [N, C, H, W]
        if self.lower is None:
            return x
        below = self.down(x) if coarse is None else self.down(x) + coarse
        below = self.lower(below)  # [N, C of the level below, H/2, W/2]
        x = x + F.pixel_shuffle(self.up(below), 2)  # [N, 4 C, H/2, W/2] -> [N, C, H, W]
        y: Tensor = self.after(x)
        return y


class Trunk(nn.Module):
    """First convolution and levels: float32[N, 48 or 24, H, W] -> features float32[N, widths[0], H, W]."""

    def __init__(self, channels: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.body = Level(widths, blocks)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        y: Tensor = features + self.body(features)
        return y
