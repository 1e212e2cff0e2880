"""`two_stage_cnn`: the full-resolution network of "Two-Stage CNN Framework for Single-Image Deblurring"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.base import ChannelOrder, Generator
from train.models.channel_attention import ChannelAttention
from train.models.channels import FIXED, Layer


class TwoStageCnn(Generator):
    """Listing 1 of the paper, with its layers and their names.

    Every layer works at full resolution. `bottleneck` and the four `t2_conv` are used three times each and
    `t3_reduce_l8_l9` twice, with the same weights. The residual passes through tanh and is added to the input, so that
    the output lies in [-2, 2]; it is clipped when it is converted to pixels. 253,155 parameters, 367,296 MAC per pixel.

    `widths`: numbers of channels of `l1`, of `l2` and most others, of `bottleneck` and of `t3_reduce_l11`; those of the
    paper unless the network was pruned. `channel_attention`: weigh the channels of each map that `t3_reduce_...`
    computes, as the paper's future work has it; such a network can start with the weights of one without, and then
    gives the same images at first.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    multiple_of: int = 1
    checkpointed_parts: ClassVar[tuple[str, ...]] = ("l1", "l2", "t1", "t2", "compute_l6", "join_l8_l9", "join_l11")

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 32, 32),
        channel_attention: bool = False,  # noqa: FBT001, FBT002 - an option of a recipe, given by name
    ) -> None:
        super().__init__()
        if len(widths) != 4 or min(widths) < 1 or widths[1] % 4:
            raise ValueError(f"widths must be four numbers, the second a multiple of 4, got {widths}")
        self.widths = tuple(widths)
        first, wide, narrowed, last = widths
        self.l1 = nn.Sequential(nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU())
        self.l2 = nn.Sequential(nn.Conv2d(first, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU())
        self.maxpool_t1_t4 = nn.MaxPool2d(3, stride=1, padding=1)
        self.bottleneck = nn.Conv2d(wide, narrowed, 1)
        self.t2_conv1 = nn.Conv2d(narrowed, wide // 4, 3, padding=1)
        self.t2_conv2 = nn.Conv2d(narrowed, wide // 4, 3, padding=1)
        self.t2_conv3 = nn.Conv2d(narrowed, wide // 4, 3, padding=1)
        self.t2_conv4 = nn.Conv2d(narrowed, wide // 4, 3, padding=1)
        self.t3_reduce_l6 = nn.Conv2d(3 * wide, wide, 3, padding=1)
        self.t3_reduce_l8_l9 = nn.Conv2d(2 * wide, wide, 3, padding=1)
        self.t3_reduce_l11 = nn.Conv2d(wide + first, last, 3, padding=1)
        self.final_conv = nn.Conv2d(last, 3, 3, padding=1)
        self.tanh = nn.Tanh()
        self.attend_l6, self.attend_l8, self.attend_l9, self.attend_l11 = (
            ChannelAttention(channels) if channel_attention else nn.Identity() for channels in (wide, wide, wide, last)
        )

    def list_layers(self) -> list[Layer]:
        """Return the layers with their channels.

        Layers with shared weights see several maps, so that these lose the same channels: the outputs of `l2`,
        `t3_reduce_l6`, `t3_reduce_l8_l9` and `t2`, each in quarters, as `t2` has four convolutions.
        """
        quarters = [f"wide{index}" for index in range(1, 5)]
        wide = tuple(quarters)
        layers = [
            Layer("l1.0", (FIXED,), ("first",), counts=False),
            Layer("l1.1", (), ("first",)),
            Layer("l2.0", ("first",), wide, counts=False),
            Layer("l2.1", (), wide),
            Layer("bottleneck", wide, ("narrow",)),
            *(Layer(f"t2_conv{index}", ("narrow",), (quarter,)) for index, quarter in enumerate(quarters, start=1)),
            Layer("t3_reduce_l6", 3 * wide, wide),
            Layer("t3_reduce_l8_l9", 2 * wide, wide),
            Layer("t3_reduce_l11", (*wide, "first"), ("last",)),
            Layer("final_conv", ("last",), (FIXED,)),
        ]
        for name, groups in (("l6", wide), ("l8", wide), ("l9", wide), ("l11", ("last",))):
            if isinstance(getattr(self, f"attend_{name}"), ChannelAttention):
                layers.append(Layer(f"attend_{name}.reduce", groups, (name,)))
                layers.append(Layer(f"attend_{name}.restore", (name,), groups, counts=False))
        return layers

    def copy_weights_from(self, trained: Generator) -> None:
        """Take the weights of a trained network, with or without channel attention where this one has it."""
        own = {key: value for key, value in self.state_dict().items() if key.startswith("attend_")}
        self.load_state_dict(own | trained.state_dict())

    def t1(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.maxpool_t1_t4(x)
        return y

    def t2(self, x: Tensor) -> Tensor:
        x = self.bottleneck(x)
        return torch.cat([self.t2_conv1(x), self.t2_conv2(x), self.t2_conv3(x), self.t2_conv4(x)], dim=1)

    def t4(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([x, self.maxpool_t1_t4(x)], dim=1))

    def compute_l6(self, l4: Tensor) -> Tensor:
        l5 = self.t4(l4)  # [N, 128, H, W]
        l6: Tensor = self.t3_reduce_l6(torch.cat([l5, l4], dim=1))
        return l6

    def join_l8_l9(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.t3_reduce_l8_l9(torch.cat([x, skip], dim=1))
        return y

    def join_l11(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.t3_reduce_l11(torch.cat([x, skip], dim=1))
        return y

    def forward(self, x: Tensor) -> Tensor:
        l1 = self.l1(x)  # [N, 32, H, W]
        l2 = self.l2(l1)  # [N, 64, H, W]; the same for all layers below without a comment
        l3 = self.t1(l2)
        l4 = self.t2(l3)
        l6 = self.attend_l6(self.compute_l6(l4))
        l7 = self.t2(l6)
        l8 = self.attend_l8(self.join_l8_l9(l7, l3))
        l9 = self.attend_l9(self.join_l8_l9(l8, l2))
        l10 = self.t2(l9)
        l11 = self.attend_l11(self.join_l11(l10, l1))  # [N, 32, H, W]
        l12 = self.t1(l11)
        residual: Tensor = self.tanh(self.final_conv(l12))  # [N, 3, H, W]
        output: Tensor = residual + x
        return output
