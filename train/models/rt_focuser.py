"""`rt_focuser`: a small U-shaped network of depthwise and 1x1 convolutions for edge devices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.base import ChannelOrder, Generator, count_items, halve

_LEVELS = 5
_EXPANSION = 4


class Focuser(nn.Module):
    """A depthwise convolution, a shortcut, and a learned sharpening filter: float32[N, C, H, W] -> the same."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        depthwise = nn.Conv2d(width, width, kernel, groups=width, padding=kernel // 2)
        self.fn = nn.Sequential(depthwise, nn.GELU(), nn.BatchNorm2d(width))
        self.denoiser = Sharpening(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fn(x) + x + self.denoiser(x)
        return y


class Sharpening(nn.Module):
    """A 3x3 filter for each channel that begins as the Laplacian."""

    def __init__(self, width: int) -> None:
        super().__init__()
        laplacian = torch.full((3, 3), -1.0)
        laplacian[1, 1] = 8.0
        self.kernel = nn.Parameter(laplacian.repeat(width, 1, 1, 1) / 9)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(F.conv2d(x, self.kernel, padding=1, groups=len(self.kernel)))
        return y


class Encoder(nn.Module):
    """Lightweight deblurring blocks, and a 3x3 convolution to the channels of the level."""

    def __init__(self, channels: int, width: int, *, depth: int, kernel: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            *(nn.Sequential(Focuser(channels, kernel), *_expand(channels, channels)) for _ in range(depth))
        )
        self.up = ConvolutionBlock(channels, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.block(x))
        return y


class ConvolutionBlock(nn.Module):
    """A 3x3 convolution, batch normalisation and ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = _convolution(channels, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class Enlargement(nn.Module):
    """Bilinear enlargement by two and a 3x3 convolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        enlarge = nn.Upsample(scale_factor=2, mode="bilinear")
        self.up = nn.Sequential(enlarge, *_convolution(channels, width, 3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(x)
        return y


class LevelFusion(nn.Module):
    """Maps of four levels in one resolution, with channel attention.

    A 1x1 convolution before a nearest-neighbour enlargement gives the same as behind it, for a fraction of the cost.
    """

    def __init__(self, channels: Sequence[int], width: int, level: int) -> None:
        """`level`: number of halvings of the resolution of the result."""
        super().__init__()
        self.level = level
        self.branches = nn.ModuleList(_convolution(count, width, 1, bias=False) for count in channels)
        self.fusion_conv = _convolution(len(channels) * width, width, 3, bias=False)
        self.channel_attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width // 4, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width // 4, width, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Fuse maps of 0, 1, 2 and 3 halvings of the resolution."""
        resized = []
        for own_level, (features, branch) in enumerate(zip(maps, self.branches, strict=True)):
            reduced = features
            for _ in range(self.level - own_level):
                reduced = halve(reduced)
            projected = branch(reduced)
            factor = 2.0 ** max(0, own_level - self.level)
            resized.append(F.interpolate(projected, scale_factor=factor) if factor > 1 else projected)
        fused: Tensor = self.fusion_conv(torch.cat(resized, dim=1))
        attended: Tensor = fused * self.channel_attention(fused)
        return attended


class ImageFusion(nn.Module):
    """Two maps, and the image in their resolution: [N, 2 C, H, W], [N, 3, H, W] -> [N, C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = 2 * width
        first = nn.Conv2d(channels, channels, 3, padding=1, groups=2)
        self.conv = nn.Sequential(first, nn.GELU(), nn.BatchNorm2d(channels), *_expand(channels, width))
        second = nn.Conv2d(width + 3, width, 3, padding=1)
        self.conv2 = nn.Sequential(second, nn.GELU(), nn.BatchNorm2d(width), *_expand(width, width))

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        y: Tensor = self.conv2(torch.cat([self.conv(x), image], dim=1))
        return y


class RtFocuser(Generator):
    """RT-Focuser (Wu et al. 2025, "RT-Focuser: A Real-Time Lightweight Model for Edge-side Image Deblurring").

    `dims`, `depths`, `kernels`: channels, number of blocks and kernel of each of the five levels. The output is the
    sigmoid of image and residual, so that a residual of zero is not the input.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    multiple_of: int = 16
    checkpointed_parts: ClassVar[tuple[str, ...]] = (r"encoder\d\.block\.\d+", r"Up_conv\d", r"Msf_\d")

    def __init__(
        self,
        dims: Sequence[int] = (16, 32, 128, 160, 256),
        depths: Sequence[int] = (3, 4, 4, 3, 2),
        kernels: Sequence[int] = (3, 3, 7, 7, 7),
    ) -> None:
        super().__init__()
        if {len(dims), len(depths), len(kernels)} != {_LEVELS} or min(*dims) < _EXPANSION or min(*depths, *kernels) < 1:
            raise ValueError(
                f"dims, depths and kernels must have {_LEVELS} numbers each, dims of at least {_EXPANSION}"
            )
        self.stem = ConvolutionBlock(3, dims[0])
        for level, channels in enumerate([dims[0], *dims[:-1]]):
            encoder = Encoder(channels, dims[level], depth=depths[level], kernel=kernels[level])
            self.add_module(f"encoder{level + 1}", encoder)
        for level in range(_LEVELS - 2, -1, -1):
            self.add_module(f"Up{level + 2}", Enlargement(dims[level + 1], dims[level]))
            self.add_module(f"Up_conv{level + 2}", ImageFusion(dims[level]))
            self.add_module(f"Msf_{2**level}", LevelFusion(dims[:-1], dims[level], level))
        self.Conv_1x1 = nn.Conv2d(dims[0], 3, 1)

    @property
    def encoders(self) -> list[nn.Module]:
        """Encoders of all levels, from the full resolution down."""
        return [getattr(self, f"encoder{level + 1}") for level in range(_LEVELS)]

    def forward(self, x: Tensor) -> Tensor:
        maps, images = [self.encoders[0](self.stem(x))], [x]  # [N, dims[0], H, W]
        for level in range(1, _LEVELS):  # down to [N, dims[4], H/16, W/16]
            maps.append(self.encoders[level](F.max_pool2d(maps[-1], 2)))
            images.append(halve(images[-1]))
        features = maps.pop()
        for level in range(_LEVELS - 2, -1, -1):
            fused = getattr(self, f"Msf_{2**level}")(maps)
            enlarged = getattr(self, f"Up{level + 2}")(features)
            features = getattr(self, f"Up_conv{level + 2}")(torch.cat([fused, enlarged], dim=1), images[level])
        return torch.sigmoid(x + self.Conv_1x1(features))

    @classmethod
    def read_options(cls, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        names = [f"encoder{level + 1}" for level in range(_LEVELS)]
        return {
            "dims": [shapes[f"{name}.up.conv.0.weight"][0] for name in names],
            "depths": [count_items(shapes, f"{name}.block") for name in names],
            "kernels": [shapes[f"{name}.block.0.0.fn.0.weight"][-1] for name in names],
        }


def _convolution(channels: int, width: int, kernel: int, *, bias: bool = True) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=bias)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def _expand(channels: int, width: int) -> list[nn.Module]:
    """Return two 1x1 convolutions with more channels between them: [N, channels, H, W] -> [N, width, H, W]."""
    inner = _EXPANSION * width
    widen, narrow = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, width, 1)
    return [widen, nn.GELU(), nn.BatchNorm2d(inner), narrow, nn.GELU(), nn.BatchNorm2d(width)]
