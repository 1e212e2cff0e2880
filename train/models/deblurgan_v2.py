"""`deblurgan_v2`: a feature pyramid on an encoder for classification, with the key layout of the published weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.base import ChannelOrder, Generator
from train.models.frame_statistics import FrameBatchNorm, FrameInstanceNorm, Statistics, use_statistics
from train.models.inception_resnet import InceptionFeatures
from train.models.mobilenet import MobileNetFeatures

Backbone = Literal["mobilenet", "inception"]
Norm = Literal["batch", "instance"]
_ENCODER_COPIES = tuple(f"fpn.enc{stage}." for stage in range(5))
"""Begin of the keys that name weights of the encoder a second time in the published state dicts."""


class Pyramid(nn.Module):
    """The encoder, and a path from its lowest map up to 1/4 of the resolution."""

    def __init__(self, backbone: Backbone, width: int, norm: Norm) -> None:
        super().__init__()
        self.backbone = backbone
        encoder: nn.Module
        if backbone == "mobilenet":
            encoder = self.features = MobileNetFeatures()
        else:
            encoder = self.inception = InceptionFeatures()
        for step in (1, 2, 3):
            convolution = nn.Conv2d(width, width, 3, padding=1)
            self.add_module(f"td{step}", nn.Sequential(convolution, _create_norm(norm, width), nn.ReLU()))
        for stage, channels in enumerate(encoder.widths):
            lateral = nn.Conv2d(channels, width if stage else width // 2, 1, bias=False)
            self.add_module(f"lateral{stage}", lateral)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return maps of 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""
        encoder = self.features if self.backbone == "mobilenet" else self.inception
        stages = list(zip(encoder(x), encoder.missing, strict=True))
        laterals = [_pad(getattr(self, f"lateral{i}")(stage), missing) for i, (stage, missing) in enumerate(stages)]
        maps = [laterals[4]]
        for step, lateral in zip((1, 2, 3), laterals[3:0:-1], strict=True):
            maps.insert(0, getattr(self, f"td{step}")(lateral + F.interpolate(maps[0], scale_factor=2.0)))
        return [laterals[0], *maps]


class Head(nn.Module):
    """Two 3x3 convolutions with ReLU on a map of the pyramid."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.block0 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.block1 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.block1(F.relu(self.block0(x))))


class DeblurGanV2(Generator):
    """DeblurGAN-v2 (Kupyn et al. 2019, "DeblurGAN-v2: Deblurring (Orders-of-Magnitude) Faster and Better").

    `backbone`: encoder, MobileNetV2 or Inception-ResNet-v2. `norm`: normalisation in the pyramid. `statistics`: mean
    and deviation that all normalisations use at inference: `frame`, those of the frame itself, as the official code
    does by leaving the network in training mode; or `trained`, the moving averages of training, which cost nothing
    because they are folded into convolutions. `width`: number of channels of the heads, half of those of the pyramid;
    None: 64 for MobileNetV2 and 128 for Inception-ResNet-v2.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    checkpointed_parts: ClassVar[tuple[str, ...]] = (
        r"fpn\.features\.\d+",
        r"fpn\.inception\.(repeat|repeat_1)\.\d+",
        r"fpn\.inception\.(conv2d|mixed)_\w+",
        r"head\d",
        r"smooth2?",
    )

    def __init__(
        self,
        backbone: Backbone = "mobilenet",
        norm: Norm = "instance",
        statistics: Statistics = "frame",
        width: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, known in (
            ("backbone", backbone, get_args(Backbone)),
            ("norm", norm, get_args(Norm)),
            ("statistics", statistics, get_args(Statistics)),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        width = width or (64 if backbone == "mobilenet" else 128)
        if width < 2:
            raise ValueError(f"width must be at least 2, got {width}")
        self.multiple_of = 32 if backbone == "mobilenet" else 128  # its unpadded convolutions need 128 pixels
        self.fpn = Pyramid(backbone, 2 * width, norm)
        self.head1, self.head2, self.head3, self.head4 = (Head(2 * width, width) for _ in range(4))
        self.smooth = _smooth(4 * width, width, norm)
        self.smooth2 = _smooth(width, width // 2, norm)
        self.final = nn.Conv2d(width // 2, 3, 3, padding=1)
        use_statistics(self, statistics)

    def forward(self, x: Tensor) -> Tensor:
        half, *maps = self.fpn(x)
        heads = (self.head1, self.head2, self.head3, self.head4)
        outputs = [
            F.interpolate(head(features), scale_factor=2.0**level) if level else head(features)
            for level, (head, features) in enumerate(zip(heads, maps, strict=True))
        ]
        features = self.smooth(torch.cat(outputs[::-1], dim=1))  # [N, width, H/4, W/4]
        features = self.smooth2(F.interpolate(features, scale_factor=2.0) + half)  # [N, width/2, H/2, W/2]
        residual = torch.tanh(self.final(F.interpolate(features, scale_factor=2.0)))  # [N, 3, H, W]
        return (x + residual).clamp(-1, 1)

    @classmethod
    def read_options(cls, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        backbone = "inception" if any(key.startswith("fpn.inception.") for key in shapes) else "mobilenet"
        width = shapes["smooth.0.weight"][0]
        return {
            "backbone": backbone,
            "norm": "batch" if "smooth.1.weight" in shapes else "instance",
            **({} if width == (64 if backbone == "mobilenet" else 128) else {"width": width}),
        }

    @classmethod
    def convert_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        unused = (*_ENCODER_COPIES, *MobileNetFeatures.unused, *InceptionFeatures.unused)
        return {key: value for key, value in state.items() if not key.startswith(unused)}


def _create_norm(norm: Norm, width: int) -> nn.Module:
    return FrameBatchNorm(width) if norm == "batch" else FrameInstanceNorm(width, track_running_stats=True)


def _smooth(channels: int, width: int, norm: Norm) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), _create_norm(norm, width), nn.ReLU())


def _pad(x: Tensor, missing: tuple[int, int]) -> Tensor:
    """Mirror rows and columns at the border: `missing` before the first and behind the last one."""
    before, behind = missing
    return F.pad(x, (before, behind, before, behind), mode="reflect") if any(missing) else x
