"""`two_stage_cnn`: the full-resolution network of "Two-Stage CNN Framework for Single-Image Deblurring"."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.base import ChannelOrder, Generator
from train.models.channel_attention import ChannelAttention


class TwoStageCnn(Generator):
    """Listing 1 of the paper, with its layers and their names.

    Every layer works at full resolution. `bottleneck` and the four `t2_conv` are used three times each and
    `t3_reduce_l8_l9` twice, with the same weights. The residual passes through tanh and is added to the input, so that
    the output lies in [-2, 2]; it is clipped when it is converted to pixels. 253,155 parameters, 367,296 MAC per pixel.

    `channel_attention`: weigh the channels of each map that `t3_reduce_...` computes: future work of the paper.
    Such a network can start with the weights of one without, and then gives the same images at first.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    multiple_of: int = 1

    def __init__(self, channel_attention: bool = False) -> None:  # noqa: FBT001, FBT002 - an option of a recipe, given by name
        super().__init__()
        self.l1 = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.l2 = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.maxpool_t1_t4 = nn.MaxPool2d(3, stride=1, padding=1)
        self.bottleneck = nn.Conv2d(64, 32, 1)
        self.t2_conv1 = nn.Conv2d(32, 16, 3, padding=1)
        self.t2_conv2 = nn.Conv2d(32, 16, 3, padding=1)
        self.t2_conv3 = nn.Conv2d(32, 16, 3, padding=1)
        self.t2_conv4 = nn.Conv2d(32, 16, 3, padding=1)
        self.t3_reduce_l6 = nn.Conv2d(192, 64, 3, padding=1)
        self.t3_reduce_l8_l9 = nn.Conv2d(128, 64, 3, padding=1)
        self.t3_reduce_l11 = nn.Conv2d(96, 32, 3, padding=1)
        self.final_conv = nn.Conv2d(32, 3, 3, padding=1)
        self.tanh = nn.Tanh()
        self.attend_l6, self.attend_l8, self.attend_l9, self.attend_l11 = (
            ChannelAttention(channels) if channel_attention else nn.Identity() for channels in (64, 64, 64, 32)
        )

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

    def forward(self, x: Tensor) -> Tensor:
        l1 = self.l1(x)  # [N, 32, H, W]
        l2 = self.l2(l1)  # [N, 64, H, W]; the same for all layers below without a comment
        l3 = self.t1(l2)
        l4 = self.t2(l3)
        l5 = self.t4(l4)  # [N, 128, H, W]
        l6 = self.attend_l6(self.t3_reduce_l6(torch.cat([l5, l4], dim=1)))
        l7 = self.t2(l6)
        l8 = self.attend_l8(self.t3_reduce_l8_l9(torch.cat([l7, l3], dim=1)))
        l9 = self.attend_l9(self.t3_reduce_l8_l9(torch.cat([l8, l2], dim=1)))
        l10 = self.t2(l9)
        l11 = self.attend_l11(self.t3_reduce_l11(torch.cat([l10, l1], dim=1)))  # [N, 32, H, W]
        l12 = self.t1(l11)
        residual: Tensor = self.tanh(self.final_conv(l12))  # [N, 3, H, W]
        output: Tensor = residual + x
        return output
