"""Feature maps of MobileNetV2 (Sandler et al. 2018), with the names of the published weights of DeblurGAN-v2."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from train.models.frame_statistics import FrameBatchNorm

_STEM_WIDTH = 32
_GROUPS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 2, 2))
"""Expansion, width, number of blocks, and stride of the first one. The last group is cut where the pyramid ends."""
_STAGE_ENDS = (2, 4, 7, 11, 16)
"""Numbers of layers up to the end of each map that the pyramid uses."""


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, depthwise convolution, 1x1 convolution to fewer, and a shortcut."""

    def __init__(self, channels: int, width: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        inner = channels * expansion
        layers = _layers(channels, inner, 1) if expansion > 1 else []
        layers += _layers(inner, inner, 3, stride=stride, groups=inner)
        layers += [nn.Conv2d(inner, width, 1, bias=False), FrameBatchNorm(width)]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.has_shortcut else y


class MobileNetFeatures(nn.Sequential):
    """Maps of 16, 24, 32, 64 and 160 channels at 1/2 to 1/32 of the resolution."""

    widths: ClassVar = (16, 24, 32, 64, 160)
    missing: ClassVar = ((0, 0),) * 5
    """Rows and columns by which each map is too small for the pyramid, before and behind it."""
    unused: ClassVar = ("fpn.features.16.", "fpn.features.17.", "fpn.features.18.")
    """Begin of the keys of layers behind the last map, which the published weights hold too."""

    def __init__(self) -> None:
        layers: list[nn.Module] = [nn.Sequential(*_layers(3, _STEM_WIDTH, 3, stride=2))]
        channels = _STEM_WIDTH
        for expansion, width, count, stride in _GROUPS:
            for index in range(count):
                first_stride = stride if index == 0 else 1
                layers.append(InvertedResidual(channels, width, expansion=expansion, stride=first_stride))
                channels = width
        super().__init__(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, layer in enumerate(self, start=1):
            x = layer(x)
            if index in _STAGE_ENDS:
                maps.append(x)
        return maps


def _layers(channels: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, FrameBatchNorm(width), nn.ReLU6()]
