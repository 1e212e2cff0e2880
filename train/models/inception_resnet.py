"""Feature maps of Inception-ResNet-v2 (Szegedy et al. 2017), with the names of the weights of DeblurGAN-v2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from train.models.frame_statistics import FrameBatchNorm

_EPSILON = 1e-3
Kernel = tuple[int, int]


class Convolution(nn.Module):
    """A convolution, batch normalisation and ReLU; padded to keep the size if `same`."""

    def __init__(self, channels: int, width: int, kernel: int | Kernel, *, stride: int = 1, same: bool = True) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(channels, width, sides, stride, padding, bias=False)
        self.bn = FrameBatchNorm(width, eps=_EPSILON)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.relu(self.bn(self.conv(x)))
        return y


class Branches(nn.Module):
    """Branches of one input, whose outputs are concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.count = len(branches)
        for index, branch in enumerate(branches):
            self.add_module(f"branch{index}", branch)

    def concatenate(self, x: Tensor) -> Tensor:
        return torch.cat([getattr(self, f"branch{index}")(x) for index in range(self.count)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.concatenate(x)


class ResidualBranches(Branches):
    """Branches, a 1x1 convolution, and a scaled shortcut: float32[N, C, H, W] -> the same."""

    def __init__(self, *branches: nn.Module, channels: int, width: int, scale: float) -> None:
        super().__init__(*branches)
        self.conv2d = nn.Conv2d(channels, width, 1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.scale * self.conv2d(self.concatenate(x)))


def _chain(channels: int, *steps: tuple[int, int | Kernel], reduces: bool = False) -> nn.Module:
    """Return convolutions of (width, kernel) one after the other; the last one halves the map if `reduces`."""
    layers: list[nn.Module] = []
    for index, (width, kernel) in enumerate(steps):
        ends = reduces and index == len(steps) - 1
        layers.append(Convolution(channels, width, kernel, stride=2 if ends else 1, same=not ends))
        channels = width
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def _block35() -> nn.Module:
    branches = (_chain(320, (32, 1)), _chain(320, (32, 1), (32, 3)), _chain(320, (32, 1), (48, 3), (64, 3)))
    return ResidualBranches(*branches, channels=128, width=320, scale=0.17)


def _block17() -> nn.Module:
    branches = (_chain(1088, (192, 1)), _chain(1088, (128, 1), (160, (1, 7)), (192, (7, 1))))
    return ResidualBranches(*branches, channels=384, width=1088, scale=0.10)


def _mixed_5b() -> nn.Module:
    pooled = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), *[_chain(192, (64, 1))])
    return Branches(_chain(192, (96, 1)), _chain(192, (48, 1), (64, 5)), _chain(192, (64, 1), (96, 3), (96, 3)), pooled)


def _mixed_6a() -> nn.Module:
    return Branches(
        _chain(320, (384, 3), reduces=True),
        _chain(320, (256, 1), (256, 3), (384, 3), reduces=True),
        nn.MaxPool2d(3, 2),
    )


def _mixed_7a() -> nn.Module:
    return Branches(
        _chain(1088, (256, 1), (384, 3), reduces=True),
        _chain(1088, (256, 1), (288, 3), reduces=True),
        _chain(1088, (256, 1), (288, 3), (320, 3), reduces=True),
        nn.MaxPool2d(3, 2),
    )


class InceptionFeatures(nn.Module):
    """Maps of 32, 64, 192, 1088 and 2080 channels, a few pixels smaller than 1/2 to 1/32 of the resolution."""

    widths: ClassVar = (32, 64, 192, 1088, 2080)
    missing: ClassVar = ((0, 1), (1, 1), (1, 2), (1, 1), (1, 1))
    """Rows and columns by which each map is too small for the pyramid, before and behind it."""
    unused: ClassVar = tuple(f"fpn.inception.{name}." for name in ("repeat_2", "block8", "conv2d_7b", "last_linear"))
    """Begin of the keys of layers behind the last map, which the published weights hold too."""
    _STAGES: ClassVar[Sequence[Sequence[str]]] = (
        ("conv2d_1a",),
        ("conv2d_2a", "conv2d_2b", "maxpool_3a"),
        ("conv2d_3b", "conv2d_4a", "maxpool_5a"),
        ("mixed_5b", "repeat", "mixed_6a"),
        ("repeat_1", "mixed_7a"),
    )

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1a = Convolution(3, 32, 3, stride=2, same=False)
        self.conv2d_2a = Convolution(32, 32, 3, same=False)
        self.conv2d_2b = Convolution(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = Convolution(64, 80, 1)
        self.conv2d_4a = Convolution(80, 192, 3, same=False)
        self.maxpool_5a = nn.MaxPool2d(3, 2)
        self.mixed_5b = _mixed_5b()
        self.repeat = nn.Sequential(*(_block35() for _ in range(10)))
        self.mixed_6a = _mixed_6a()
        self.repeat_1 = nn.Sequential(*(_block17() for _ in range(20)))
        self.mixed_7a = _mixed_7a()

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for names in self._STAGES:
            for name in names:
                x = getattr(self, name)(x)
            maps.append(x)
        return maps
