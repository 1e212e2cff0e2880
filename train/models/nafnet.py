"""`nafnet`: a U-shaped network without activation functions, with the key layout of the published checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from train.models.base import ChannelOrder, Generator, count_items
from train.models.pooling import pool_windows

_EPSILON = 1e-6


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel: float32[N, C, H, W] -> the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        inverse_deviation = torch.rsqrt((centred * centred).mean(1, keepdim=True) + _EPSILON)  # [N, 1, H, W]
        return centred * inverse_deviation * self.weight[:, None, None] + self.bias[:, None, None]


class AttentionPooling(nn.Module):
    """Mean of each channel, over the whole map or over a window about each pixel: [N, C, H, W] -> [N, C, h, w]."""

    def __init__(self, window: int) -> None:
        """`window`: side of the window in pixels of the map; 0: the whole map, for which h and w are 1."""
        super().__init__()
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        return pool_windows(x, self.window) if self.window else x.mean((2, 3), keepdim=True)


class NafBlock(nn.Module):
    """Figure 3 of the paper: a gated depthwise convolution with channel attention, and a gated 1x1 convolution."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(width)
        self.conv1 = nn.Conv2d(width, 2 * width, 1)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.sca = nn.Sequential(AttentionPooling(window), nn.Conv2d(width, width, 1))
        self.conv3 = nn.Conv2d(width, width, 1)
        self.norm2 = ChannelNorm(width)
        self.conv4 = nn.Conv2d(width, 2 * width, 1)
        self.conv5 = nn.Conv2d(width, width, 1)
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))  # training begins with the identity
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        gated = _gate(self.conv2(self.conv1(self.norm1(x))))  # [N, C, H, W], as everywhere outside of a gate
        x = x + self.conv3(gated * self.sca(gated)) * self.beta
        y: Tensor = x + self.conv5(_gate(self.conv4(self.norm2(x)))) * self.gamma
        return y


def _gate(x: Tensor) -> Tensor:
    """Multiply both halves of the channels: [N, 2 C, H, W] -> [N, C, H, W]."""
    first, second = x.chunk(2, dim=1)
    return first * second


class Nafnet(Generator):
    """NAFNet (Chen et al. 2022, "Simple Baselines for Image Restoration"): blocks without activation functions.

    `width`: number of channels at full resolution, doubled at each level. `encoder_blocks`, `decoder_blocks`: number of
    blocks of each level on the way down and on the way up; `middle_blocks`: those of the lowest level. `pooling_px`:
    side in pixels of the window over which the channel attention pools at inference, 0 for the whole frame. The
    published networks were trained on crops of 256x256 pixels and evaluated with 384 (TLC: Chu et al. 2022, "Improving
    Image Restoration by Revisiting Global Information Aggregation").
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    feature_layer: ClassVar[str] = "middle_blks"
    checkpointed_parts: ClassVar[tuple[str, ...]] = (r"((encoders|decoders)\.\d+|middle_blks)\.\d+",)

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = (1, 1, 1, 28),
        middle_blocks: int = 1,
        decoder_blocks: Sequence[int] = (1, 1, 1, 1),
        pooling_px: int = 0,
    ) -> None:
        super().__init__()
        levels = len(encoder_blocks)
        if levels != len(decoder_blocks) or min(width, middle_blocks, *encoder_blocks, *decoder_blocks) < 1:
            raise ValueError("width and blocks must be at least 1, with as many levels in the encoder and the decoder")
        if pooling_px and pooling_px < 2**levels:
            raise ValueError(f"pooling_px must be 0 or at least {2**levels}, got {pooling_px}")
        self.multiple_of = 2**levels
        widths = [width * 2**level for level in range(levels + 1)]
        windows = [pooling_px // 2**level for level in range(levels + 1)]

        def blocks(level: int, count: int) -> nn.Sequential:
            return nn.Sequential(*(NafBlock(widths[level], windows[level]) for _ in range(count)))

        self.intro = nn.Conv2d(3, width, 3, padding=1)
        self.encoders = nn.ModuleList(blocks(level, count) for level, count in enumerate(encoder_blocks))
        self.downs = nn.ModuleList(nn.Conv2d(wide, 2 * wide, 2, stride=2) for wide in widths[:-1])
        self.middle_blks = blocks(levels, middle_blocks)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, 2 * wide, 1, bias=False), nn.PixelShuffle(2)) for wide in widths[:0:-1]
        )
        self.decoders = nn.ModuleList(blocks(levels - 1 - step, count) for step, count in enumerate(decoder_blocks))
        self.ending = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.intro(x)  # [N, width, H, W]
        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            features = encoder(features)
            skips.append(features)
            features = down(features)  # twice the channels, half the resolution
        features = self.middle_blks(features)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            features = decoder(up(features) + skips.pop())
        residual: Tensor = self.ending(features)  # [N, 3, H, W]
        return x + residual

    @classmethod
    def read_options(cls, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        encoder, decoder = (
            [count_items(shapes, f"{part}.{level}") for level in range(count_items(shapes, part))]
            for part in ("encoders", "decoders")
        )
        return {
            "width": shapes["intro.weight"][0],
            "encoder_blocks": encoder,
            "middle_blocks": count_items(shapes, "middle_blks"),
            "decoder_blocks": decoder,
        }
