"""`mimo_unet`: a U-shaped network of plain convolutions that reads the image at three resolutions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.base import ChannelOrder, Generator, count_items, halve

_TRAINING_ONLY = "ConvsOut."
"""Begin of the keys of the outputs at lower resolutions, which the published networks were trained with."""


class Convolution(nn.Module):
    """A convolution of odd kernel, or a transposed one that doubles the resolution, and ReLU if `relu`."""

    def __init__(self, channels: int, width: int, kernel: int, *, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        layer: nn.Module
        if kernel % 2:
            layer = nn.Conv2d(channels, width, kernel, padding=kernel // 2, stride=stride)
        else:
            layer = nn.ConvTranspose2d(channels, width, kernel, padding=kernel // 2 - 1, stride=stride)
        self.main = nn.Sequential(layer, *([nn.ReLU()] if relu else []))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them: float32[N, C, H, W] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(Convolution(width, width, 3), Convolution(width, width, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.main(x)
        return y


class Blocks(nn.Module):
    """Residual blocks at one resolution."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(ResidualBlock(width) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class ShallowFeatures(nn.Module):
    """Shallow convolutional module of the paper: features of the image at a lower resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            Convolution(3, width // 4, 3),
            Convolution(width // 4, width // 2, 1),
            Convolution(width // 2, width // 2, 3),
            Convolution(width // 2, width - 3, 1),
        )
        self.conv = Convolution(width, width, 1, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.cat([x, self.main(x)], dim=1))
        return y


class FeatureAttention(nn.Module):
    """Feature attention module of the paper: x + conv(x * features of the image)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.merge = Convolution(width, width, 3, relu=False)

    def forward(self, x: Tensor, image_features: Tensor) -> Tensor:
        y: Tensor = x + self.merge(x * image_features)
        return y


class AsymmetricFusion(nn.Module):
    """Asymmetric feature fusion of the paper: the maps of all levels, resized to one of them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(Convolution(channels, width, 1), Convolution(width, width, 3, relu=False))

    def forward(self, *maps: Tensor) -> Tensor:
        y: Tensor = self.conv(torch.cat(maps, dim=1))
        return y


class MimoUnet(Generator):
    """MIMO-UNet (Cho et al. 2021, "Rethinking Coarse-to-Fine Approach in Single Image Deblurring").

    `width`: number of channels at full resolution, doubled at each of the two lower ones. `blocks`: number of residual
    blocks of each encoder and decoder, 8 in MIMO-UNet and 20 in MIMO-UNet+. The outputs at lower resolutions, which the
    paper compares with reduced images in training, are left out, and so is the dropout of MIMO-UNet+.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    multiple_of: int = 4
    checkpointed_parts: ClassVar[tuple[str, ...]] = (r"(Encoder|Decoder)\.\d+\.layers\.\d+",)

    def __init__(self, width: int = 32, blocks: int = 8) -> None:
        super().__init__()
        if width < 4 or blocks < 1:
            raise ValueError(f"width must be at least 4 and blocks at least 1, got {width} and {blocks}")
        widths = [width, 2 * width, 4 * width]
        self.Encoder = nn.ModuleList(Blocks(wide, blocks) for wide in widths)
        self.Decoder = nn.ModuleList(Blocks(wide, blocks) for wide in widths[::-1])
        self.Convs = nn.ModuleList([Convolution(4 * width, 2 * width, 1), Convolution(2 * width, width, 1)])
        self.AFFs = nn.ModuleList([AsymmetricFusion(7 * width, wide) for wide in widths[:2]])
        self.FAM1, self.SCM1 = FeatureAttention(widths[2]), ShallowFeatures(widths[2])
        self.FAM2, self.SCM2 = FeatureAttention(widths[1]), ShallowFeatures(widths[1])
        self.feat_extract = nn.ModuleList(
            [
                Convolution(3, width, 3),
                Convolution(width, 2 * width, 3, stride=2),
                Convolution(2 * width, 4 * width, 3, stride=2),
                Convolution(4 * width, 2 * width, 4, stride=2),
                Convolution(2 * width, width, 4, stride=2),
                Convolution(width, 3, 3, relu=False),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        half = halve(x)
        quarter = halve(half)
        level1 = self.Encoder[0](self.feat_extract[0](x))  # [N, width, H, W]
        level2 = self.Encoder[1](self.FAM2(self.feat_extract[1](level1), self.SCM2(half)))  # [N, 2 width, H/2, W/2]
        level3 = self.FAM1(self.feat_extract[2](level2), self.SCM1(quarter))  # [N, 4 width, H/4, W/4]
        level3 = self.Encoder[2](level3)
        level3_twice = F.interpolate(level3, scale_factor=2.0)
        fused2 = self.AFFs[1](halve(level1), level2, level3_twice)
        fused1 = self.AFFs[0](
            level1, F.interpolate(level2, scale_factor=2.0), F.interpolate(level3_twice, scale_factor=2.0)
        )
        features = self.feat_extract[3](self.Decoder[0](level3))  # [N, 2 width, H/2, W/2]
        features = self.Decoder[1](self.Convs[0](torch.cat([features, fused2], dim=1)))
        features = self.feat_extract[4](features)  # [N, width, H, W]
        features = self.Decoder[2](self.Convs[1](torch.cat([features, fused1], dim=1)))
        residual: Tensor = self.feat_extract[5](features)  # [N, 3, H, W]
        return x + residual

    @classmethod
    def read_options(cls, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        return {
            "width": shapes["feat_extract.0.main.0.weight"][0],
            "blocks": count_items(shapes, "Encoder.0.layers"),
        }

    @classmethod
    def convert_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if not key.startswith(_TRAINING_ONLY)}
