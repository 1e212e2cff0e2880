"""What every generator promises to the loop and to the export."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Generator(nn.Module):
    """float32[N, 3, H, W] blurred -> float32[N, 3, H, W] sharp, same size and range.

    Subclasses state how they see pixels; `export.graph.pixel_interface` builds the uint8 BGR interface from it,
    and `restore` does the same in PyTorch.
    """

    channel_order: ClassVar[Literal["BGR", "RGB"]]
    """Order of the three colour planes."""
    pixel_range: ClassVar[tuple[float, float]]
    """Values of black and of full white."""
    multiple_of: int
    """H and W must be multiples of this; `padded` sees to it."""
    patch_px: ClassVar[int] = 1
    """Side P of the squares of pixels that `core` takes as the channels of one place."""

    features_at: ClassVar[str] = ""
    """The part whose output is compared with a teacher's, where `losses.feature_distillation` has a weight."""

    def core(self, x: Tensor) -> Tensor:
        """What is exported: float32[N, 3 P^2, H / P, W / P] -> the same, as `patches` makes them."""
        output: Tensor = self(x)
        return output

    def begin_as(self, trained: Generator) -> None:
        """Take the weights of `trained`; raises RuntimeError if they do not fit."""
        self.load_state_dict(trained.state_dict())


def patches(x: Tensor, patch_px: int) -> Tensor:
    """float32[N, C, H, W] -> float32[N, P^2 C, H / P, W / P], channels by row, column, colour.

    So the values of a patch come in the order of a frame's bytes, of which whole rows of patches
    can be moved at once; `pixel_unshuffle` has the colour first.
    """
    count, channels, height, width = x.shape
    rows, columns = height // patch_px, width // patch_px
    split = x.reshape(count, channels, rows, patch_px, columns, patch_px)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(count, patch_px**2 * channels, rows, columns)


def pixels(x: Tensor, patch_px: int) -> Tensor:
    """The inverse of `patches`."""
    count, channels, rows, columns = x.shape
    split = x.reshape(count, patch_px, patch_px, channels // patch_px**2, rows, columns)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // patch_px**2, rows * patch_px, columns * patch_px)


def padded(generator: nn.Module, x: Tensor, *, multiple_of: int) -> Tensor:
    """Any H and W through a network that wants multiples: the last row and column are repeated."""
    height, width = x.shape[2:]
    missing = (-height % multiple_of, -width % multiple_of)
    if any(missing):
        x = F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
    output: Tensor = generator(x)
    return output[:, :, :height, :width]


def planes(frames: Tensor, generator: Generator) -> Tensor:
    """uint8[N, H, W, 3] BGR -> float32[N, 3, H, W] in [0, 1], in the generator's order of colours."""
    ordered = frames.flip(3) if generator.channel_order == "RGB" else frames
    return ordered.permute(0, 3, 1, 2).float().div(255)


def restored_planes(network: nn.Module, blurred: Tensor, generator: Generator) -> Tensor:
    """float32[N, 3, H, W] in [0, 1] -> the same, restored, any H and W; the result is not clipped.

    `network`: the `generator` or what wraps it.
    """
    low, high = generator.pixel_range
    output = padded(network, blurred * (high - low) + low, multiple_of=generator.multiple_of)
    return (output.float() - low) / (high - low)


def restore(generator: Generator, frames: Tensor) -> Tensor:
    """uint8[N, H, W, 3] BGR, any H and W -> the same, restored, clipped and rounded."""
    with torch.inference_mode():
        codes = restored_planes(generator, planes(frames, generator), generator).mul(255).clamp(0, 255).round()
    ordered = codes.flip(1) if generator.channel_order == "RGB" else codes
    return ordered.permute(0, 2, 3, 1).to(torch.uint8)
