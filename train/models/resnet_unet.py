"""`resnet_unet`: a pretrained ResNet encoder, and a decoder with skip connections from it."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from train.models.base import ChannelOrder, Generator
from train.models.encoders import ImageNetNormalisation, create_encoder
from train.models.skip_connections import AttentionGate, DenseSkips, enlarge

Size = Literal["18", "34", "50"]
_DEPTHS: dict[Size, tuple[int, ...]] = {"18": (2, 2, 2, 2), "34": (3, 4, 6, 3), "50": (3, 4, 6, 3)}


class ResnetUnet(Generator):
    """Section V of the DeblurGAN-v2 paper: ResNet encoder (He et al. 2016), upsampling decoder.

    The encoder has five feature maps, at 1/2 to 1/32 of the resolution. Each of the five steps of the decoder enlarges
    its map bilinearly by two, concatenates the encoder's map of that size, and convolves twice. The last step
    concatenates the image itself; the result is added to the image.

    `size`: number of layers, 18, 34 or 50. `pretrained`: folder or hub name, None for random weights. `width`: number
    of channels of the stem, 64 in the published ResNets. `attention`: a gate on each skip connection but that of the
    image. `dense_skips`: skip connections with convolutions between the resolutions of the encoder's maps. The abstract
    of the paper names both, and no section describes them.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    multiple_of: int = 32
    checkpointed_parts: ClassVar[tuple[str, ...]] = (r"encoder\.encoder\.stages\.\d+", r"decoder\.\d+")

    def __init__(
        self,
        size: Size = "50",
        pretrained: str | None = None,
        width: int = 64,
        attention: bool = False,  # noqa: FBT001, FBT002 - an option of a recipe, given by name
        dense_skips: bool = False,  # noqa: FBT001, FBT002 - likewise
    ) -> None:
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
        maps, widths = [width, *stages[:3]], [width // 2, width, 2 * width, 4 * width]  # at 1/2, 1/4, 1/8 and 1/16
        self.dense_skips = DenseSkips(maps, widths) if dense_skips else None
        skips = [3, *(self.dense_skips.channels if self.dense_skips else maps)]
        widths = [width // 2, *widths]
        below = [*widths[1:], stages[3]]
        steps = list(zip(below, skips, widths, strict=True))[::-1]  # from the lowest resolution to the full one
        self.decoder = nn.ModuleList(_double_convolution(lower + skip, out) for lower, skip, out in steps)
        self.gates = nn.ModuleList(AttentionGate(skip, lower) for lower, skip, _ in steps[:-1]) if attention else None
        self.final_conv = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.encoder.embedder.embedder(self.normalisation(x))  # [N, width, H/2, W/2]
        features = self.encoder.embedder.pooler(stem)  # [N, width, H/4, W/4]
        maps = [stem]
        for stage in self.encoder.encoder.stages:
            features = stage(features)  # H/4, H/8, H/16, H/32
            maps.append(features)
        maps.pop()
        skips = [x, *(self.dense_skips(maps) if self.dense_skips else maps)]
        for step, block in enumerate(self.decoder):  # H/16, H/8, H/4, H/2, H
            features, skip = enlarge(features), skips.pop()
            if self.gates and step < len(self.gates):
                skip = self.gates[step](skip, features)
            features = block(torch.cat([features, skip], dim=1))
        residual: Tensor = self.final_conv(features)  # [N, 3, H, W]
        return x + residual


def _double_convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
    )
