"""`edge`: a U of plain convolutions that begins at a quarter of the resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.base import Generator, patches, pixels

PATCH_PX = 4


class PlainBlock(nn.Module):
    """relu(conv(relu(conv(x)))), each convolution begun as the identity with a little noise.

    So it trains as with a shortcut around each of them (Zagoruyko and Komodakis 2017, DiracNets), and
    infers without one: an addition in 8 bits costs a rounding and a pass over memory.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            for convolution in (self.conv1, self.conv2):
                convolution.weight.mul_(0.3)
                convolution.weight[:, :, 1, 1] += torch.eye(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.conv1(x))))


class Level(nn.Module):
    """Blocks at one resolution, around what happens at half of it: float[N, C, H, W] -> the same."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        width = widths[0]
        self.before = nn.Sequential(*(PlainBlock(width) for _ in range(blocks[0])))
        self.lower = None
        if widths[1:]:
            self.down = nn.Conv2d(width, widths[1], 2, stride=2)
            self.lower = Level(widths[1:], blocks[1:])
            self.up = nn.Conv2d(widths[1], 4 * width, 1)
            self.after = nn.Sequential(*(PlainBlock(width) for _ in range(blocks[0])))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        if self.lower is None:
            return x
        x = x + F.pixel_shuffle(self.up(self.lower(self.down(x))), 2)
        y: Tensor = self.after(x)
        return y


class Edge(Generator):
    """Patches of 4x4 pixels, a U of plain 3x3 convolutions, global residual.

    Each pixel costs a sixteenth of what the same convolutions cost at full resolution, and each
    level below a quarter of the one above. No batch statistics: train and eval mode are alike.
    `widths`: channels from the first level down; `blocks`: pairs of convolutions there, which the
    levels above the last have twice, on the way down and up.
    """

    # Frames arrive as BGR; a network that was trained so needs no channel swap in the engine.
    channel_order: ClassVar[Literal["BGR", "RGB"]] = "BGR"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    patch_px: ClassVar[int] = PATCH_PX
    features_at: ClassVar[str] = "body"

    def __init__(self, widths: Sequence[int] = (32, 64, 96), blocks: Sequence[int] = (1, 1, 2)) -> None:
        super().__init__()
        if not widths or len(widths) != len(blocks) or min(*widths, *blocks) < 1:
            raise ValueError(f"widths and blocks must be as many, each at least 1, got {widths} and {blocks}")
        self.multiple_of = PATCH_PX * 2 ** (len(widths) - 1)
        channels = 3 * PATCH_PX**2
        self.head = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.body = Level(widths, blocks)
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1)
        with torch.no_grad():
            self.tail.weight.mul_(0.1)  # training begins at the blurred picture itself

    def forward(self, x: Tensor) -> Tensor:
        return pixels(self.core(patches(x, PATCH_PX)), PATCH_PX)

    def begin_as(self, trained: Generator) -> None:
        """Take the weights of a network as large or smaller, of as many levels: the same pictures come out.

        Channels that `trained` has not got begin as they are, and are read by none that it has; blocks that it
        has not got begin as the identity (Chen, Goodfellow and Shlens 2016, Net2Net). Raises RuntimeError.
        """
        weights, theirs = self.state_dict(), trained.state_dict()
        further = {name for name in weights.keys() - theirs.keys() if ".before." in name or ".after." in name}
        if weights.keys() - further != theirs.keys():
            raise RuntimeError("it is of another kind, has more blocks, or other levels")
        for name, weight in weights.items():
            if name in further:
                nn.init.zeros_(weight) if weight.ndim == 1 else nn.init.dirac_(weight)
                continue
            taken = theirs[name]
            if any(there > here for there, here in zip(taken.shape, weight.shape, strict=True)):
                raise RuntimeError(f"{name} is larger there: {list(taken.shape)}, {list(weight.shape)} here")
            weight[: len(taken)] = 0
            weight[tuple(slice(size) for size in taken.shape)] = taken

    def core(self, x: Tensor) -> Tensor:
        features = self.head(x)
        features = features + self.body(features)
        residual: Tensor = self.tail(features)
        return x + residual
