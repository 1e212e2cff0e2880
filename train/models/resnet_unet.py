"""`resnet_unet`: a pretrained ResNet encoder, and a decoder with skip connections from it."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel

from train.models.base import ChannelOrder, Generator
from train.models.encoders import ImageNetNormalisation, create_encoder

Size = Literal["18", "34", "50"]
_DEPTHS: dict[Size, tuple[int, ...]] = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "50": (3, 4, 6, 3)}


class ResnetUnet(Generator):
    """Section V of the DeblurGAN-v2 paper: ResNet encoder (He et al. 2016), upsampling decoder.

    The encoder has five feature maps, at 1/2 to 1/32 of the resolution. Each of the five steps of the decoder enlarges
    its map bilinearly by two, concatenates the encoder's map of that size, and convolves twice. The last step
    concatenates the image itself; the result is added to the image.

    `size`: number of layers, 18, 34 or 50. `pretrained`: folder or hub name, None for random weights. `width`: number
    of channels of the stem, 64 in the published ResNets.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    multiple_of: int = 32

    def __init__(self, size: Size = "50", pretrained: str | None = None, width: int = 64) -> None:
        super().__init__()
        size = str(size)  # type: ignore[assignment]  # --set options.size=34 gives a number
        if size not in get_args(Size):
            raise ValueError(f"size must be one of {', '.join(get_args(Size))}, got {size!r}")
        if width < 8:
            raise ValueError(f"width must be at least 8, got {width}")
        expansion = 4 if size == "50" else 1
        stages = [expansion * width * 2**stage for stage in range(4)]
        config = ResNetConfig(
            embedding_size=width,
            hidden_sizes=stages,
            depths=_DEPTHS[size],
            layer_type="bottleneck" if size == "50" else "basic",
        )
        self.normalisation = ImageNetNormalisation()
        self.encoder = create_encoder(ResNetModel, config, pretrained=pretrained)
        skips = [*reversed(stages[:3]), width, 3]
        widths = [4 * width, 2 * width, width, width // 2, width // 2]
        below = [stages[3], *widths[:-1]]
        self.decoder = nn.ModuleList(
            _double_convolution(lower + skip, out) for lower, skip, out in zip(below, skips, widths, strict=True)
        )
        self.final_conv = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]  # [N, 3, H, W]
        stem = self.encoder.embedder.embedder(self.normalisation(x))  # [N, width, H/2, W/2]
        maps.append(stem)
        features = self.encoder.embedder.pooler(stem)  # [N, width, H/4, W/4]
        for stage in self.encoder.encoder.stages:
            features = stage(features)  # H/4, H/8, H/16, H/32
            maps.append(features)
        features = maps.pop()
        for block in self.decoder:  # H/16, H/8, H/4, H/2, H
            features = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=False)
            features = block(torch.cat([features, maps.pop()], dim=1))
        residual: Tensor = self.final_conv(features)  # [N, 3, H, W]
        return x + residual


def _double_convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
    )
