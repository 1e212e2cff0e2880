"""`restormer`: a U-shaped transformer whose attention compares channels, not pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.base import ChannelOrder, Generator, count_items

_EPSILON = 1e-5
_LEVELS = 4


class NormWeights(nn.Module):
    """Layer normalisation over the channels of each pixel: float32[N, C, H, W] -> the same.

    Without `bias`, the values are divided by their deviation, but keep their mean.
    """

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        inverse_deviation = torch.rsqrt((centred * centred).mean(1, keepdim=True) + _EPSILON)  # [N, 1, H, W]
        weight = self.weight[:, None, None]
        if self.bias is None:
            return x * inverse_deviation * weight
        return centred * inverse_deviation * weight + self.bias[:, None, None]


class ChannelNorm(nn.Module):
    """Holder of `NormWeights`, for the names of the published weights."""

    def __init__(self, width: int, *, bias: bool) -> None:
        super().__init__()
        self.body = NormWeights(width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class FeedForward(nn.Module):
    """Gated feed-forward network of the paper: 1x1 convolution, depthwise convolution, gate, 1x1 convolution."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.project_in = nn.Conv2d(width, 2 * hidden, 1, bias=bias)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=bias)
        self.project_out = nn.Conv2d(hidden, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, values = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        y: Tensor = self.project_out(F.gelu(gate) * values)
        return y


class ChannelAttention(nn.Module):
    """Transposed attention of the paper: channels attend to channels, over all pixels of the frame."""

    def __init__(self, width: int, heads: int, *, bias: bool) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(width, 3 * width, 1, bias=bias)
        self.qkv_dwconv = nn.Conv2d(3 * width, 3 * width, 3, padding=1, groups=3 * width, bias=bias)
        self.project_out = nn.Conv2d(width, width, 1, bias=bias)
        self.heads = heads

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        queries, keys, values = (part.flatten(2).unflatten(1, (self.heads, -1)) for part in parts)  # [N, heads, C, H W]
        scores = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).transpose(-2, -1) * self.temperature
        mixed = scores.softmax(dim=-1) @ values
        y: Tensor = self.project_out(mixed.flatten(1, 2).unflatten(2, x.shape[2:]))
        return y


class TransformerBlock(nn.Module):
    """Attention and feed-forward network, each normalised before and with a shortcut around it."""

    def __init__(self, width: int, heads: int, expansion: float, *, bias: bool, norm_bias: bool) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(width, bias=norm_bias)
        self.attn = ChannelAttention(width, heads, bias=bias)
        self.norm2 = ChannelNorm(width, bias=norm_bias)
        self.ffn = FeedForward(width, int(width * expansion), bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.ffn(self.norm2(x))
        return y


class Resize(nn.Module):
    """A 3x3 convolution, and pixels moved into channels (`factor` 0.5) or channels into pixels (`factor` 2)."""

    def __init__(self, width: int, factor: float) -> None:
        super().__init__()
        shuffle = nn.PixelShuffle(2) if factor > 1 else nn.PixelUnshuffle(2)
        self.body = nn.Sequential(nn.Conv2d(width, int(width * factor), 3, padding=1, bias=False), shuffle)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y


class Restormer(Generator):
    """Restormer (Zamir et al. 2022, "Restormer: Efficient Transformer for High-Resolution Image Restoration").

    `width`: number of channels at full resolution, doubled at each lower level. `blocks`, `heads`: number of blocks and
    of attention heads of each of the four levels. `refinement_blocks`: number of blocks behind the decoder.
    `expansion`: width of the feed-forward networks. `bias`: biases of convolutions; `norm_bias`: of normalisations.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    multiple_of: int = 8
    checkpointed_parts: ClassVar[tuple[str, ...]] = (r"(encoder_level\d|decoder_level\d|latent|refinement)\.\d+",)

    def __init__(
        self,
        *,
        width: int = 48,
        blocks: Sequence[int] = (4, 6, 6, 8),
        refinement_blocks: int = 4,
        heads: Sequence[int] = (1, 2, 4, 8),
        expansion: float = 2.66,
        bias: bool = False,
        norm_bias: bool = True,
    ) -> None:
        super().__init__()
        if {len(blocks), len(heads)} != {_LEVELS} or min(width, refinement_blocks, *blocks, *heads) < 1:
            raise ValueError(f"blocks and heads must have {_LEVELS} numbers each, all numbers at least 1")
        if any(width * 2**level % count for level, count in enumerate(heads)):
            raise ValueError(f"the channels of each level must be a multiple of its heads, got {width} and {heads}")

        def stack(count: int, level: int, *, wide: int = 1) -> nn.Sequential:
            channels = wide * width * 2**level
            return nn.Sequential(
                *(
                    TransformerBlock(channels, heads[level], expansion, bias=bias, norm_bias=norm_bias)
                    for _ in range(count)
                )
            )

        self.patch_embed = nn.Sequential()
        self.patch_embed.add_module("proj", nn.Conv2d(3, width, 3, padding=1, bias=False))
        self.encoder_level1, self.down1_2 = stack(blocks[0], 0), Resize(width, 0.5)
        self.encoder_level2, self.down2_3 = stack(blocks[1], 1), Resize(2 * width, 0.5)
        self.encoder_level3, self.down3_4 = stack(blocks[2], 2), Resize(4 * width, 0.5)
        self.latent = stack(blocks[3], 3)
        self.up4_3, self.reduce_chan_level3 = Resize(8 * width, 2), nn.Conv2d(8 * width, 4 * width, 1, bias=bias)
        self.decoder_level3 = stack(blocks[2], 2)
        self.up3_2, self.reduce_chan_level2 = Resize(4 * width, 2), nn.Conv2d(4 * width, 2 * width, 1, bias=bias)
        self.decoder_level2 = stack(blocks[1], 1)
        self.up2_1 = Resize(2 * width, 2)
        self.decoder_level1 = stack(blocks[0], 0, wide=2)
        self.refinement = stack(refinement_blocks, 0, wide=2)
        self.output = nn.Conv2d(2 * width, 3, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        level1 = self.encoder_level1(self.patch_embed(x))  # [N, width, H, W]
        level2 = self.encoder_level2(self.down1_2(level1))  # [N, 2 width, H/2, W/2]
        level3 = self.encoder_level3(self.down2_3(level2))  # [N, 4 width, H/4, W/4]
        features = self.latent(self.down3_4(level3))  # [N, 8 width, H/8, W/8]
        features = self.reduce_chan_level3(torch.cat([self.up4_3(features), level3], dim=1))
        features = self.decoder_level3(features)
        features = self.reduce_chan_level2(torch.cat([self.up3_2(features), level2], dim=1))
        features = self.decoder_level2(features)
        features = self.decoder_level1(torch.cat([self.up2_1(features), level1], dim=1))  # [N, 2 width, H, W]
        residual: Tensor = self.output(self.refinement(features))  # [N, 3, H, W]
        return x + residual

    @classmethod
    def read_options(cls, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        encoders = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")
        width = shapes["patch_embed.proj.weight"][0]
        hidden = shapes["latent.0.ffn.project_out.weight"][1]
        return {
            "width": width,
            "blocks": [count_items(shapes, name) for name in encoders],
            "refinement_blocks": count_items(shapes, "refinement"),
            "heads": [shapes[f"{name}.0.attn.temperature"][0] for name in encoders],
            "expansion": round((hidden + 0.5) / (8 * width), 2),
            "bias": "output.bias" in shapes,
            "norm_bias": "latent.0.norm1.body.bias" in shapes,
        }
