"""Contract of a generator, and what training and export do around every network: padding, range and colour order.

To add a network, write one file next to this one with a subclass of `Generator`. Three convolutions are enough:

    class Tiny(Generator):
        channel_order: ClassVar[ChannelOrder] = "BGR"
        pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

        def __init__(self, width: int = 16) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, 3, padding=1)
            self.conv2 = nn.Conv2d(width, width, 3, padding=1)
            self.conv3 = nn.Conv2d(width, 3, 3, padding=1)
            nn.init.zeros_(self.conv3.weight)  # training begins with the blurred image
            nn.init.zeros_(self.conv3.bias)

        def forward(self, x: Tensor) -> Tensor:  # [N, 3, H, W] -> [N, 3, H, W]
            features = F.relu(self.conv2(F.relu(self.conv1(x))))  # [N, width, H, W]
            return x + self.conv3(features)

Then add a line for it to `GENERATORS` in `train/models/__init__.py`. `python -m train --generator NAME --set
options.width=32` trains it, and `python -m export RUN` makes engines of it; see docs/howto/add-a-network.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from train.models.channels import Layer

ChannelOrder = Literal["BGR", "RGB"]


class Generator(nn.Module):
    """A network that turns blurred images into sharp ones: float32[N, 3, H, W] -> float32[N, 3, H, W].

    `forward` gets H and W that are multiples of `multiple_of`, values in `pixel_range` and colours in `channel_order`.
    It returns the same size, range and order; values outside the range are allowed, they are clipped later. A residual
    is part of the network: most networks return the input plus a correction, so that training begins near the blurred
    image. The result for an image must not depend on the other images of the batch in eval mode.

    The constructor takes the options of the recipe as keyword arguments (`--set options.NAME=VALUE`), all with
    defaults, and raises ValueError for values that it cannot use. Everything else is done outside of the network:
    `restore_nchw` scales and pads, `restore_frames` takes and returns uint8 BGR frames, and
    `export.graph.pixel_interface` adds the same steps to an exported engine.
    """

    channel_order: ClassVar[ChannelOrder]
    """Order of the three channels. Frames arrive as BGR, so that BGR needs no swap in the engine."""
    pixel_range: ClassVar[tuple[float, float]]
    """Values of black and of white, such as (0.0, 1.0) or (-1.0, 1.0)."""
    multiple_of: int = 1
    """Divisor of every height and width that `forward` gets: 2 for one halving of the resolution, 4 for two, ..."""
    patch_px: ClassVar[int] = 1
    """Side P of the squares of pixels that `core` takes as channels; 1 for a network that takes pixels."""
    feature_layer: ClassVar[str] = ""
    """Name of the submodule whose output `losses.feature_distillation` compares with a teacher's; empty: none."""
    widths: tuple[int, ...] = ()
    """Option `widths` of a network whose channels can be removed (`list_layers`)."""
    checkpointed_parts: ClassVar[tuple[str, ...]] = ()
    """Names of methods, and regular expressions of names of submodules, whose activations `checkpoint_activations`
    computes again in the backward pass instead of keeping them; none of them may be inside another."""

    def core(self, x: Tensor) -> Tensor:
        """Compute the part that is exported: float32[N, 3 P^2, H / P, W / P] -> the same (`patches_from_pixels`).

        Override it together with `patch_px` if the network begins and ends with patches.
        """
        output: Tensor = self(x)
        return output

    def compute_residual(self, patches: Tensor) -> Tensor:
        """Compute what the core adds to its input; override it if the network ends with an addition of its input."""
        return self.core(patches) - patches

    @classmethod
    def read_options(cls, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """Return the options of the network whose state dict has these keys and shapes.

        Only networks with published checkpoints have it. Raises KeyError if a key that says a size is missing.
        """
        raise KeyError(f"no size of {cls.__name__} in {len(shapes)} keys")

    @classmethod
    def convert_keys(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a published state dict without weights that the network does not use or that are in it twice."""
        return state

    def list_layers(self) -> list[Layer]:
        """Return the layers, each with the groups that its channels belong to, so that channels can be removed.

        Raises ValueError for a network whose channels cannot be removed.
        """
        raise ValueError(f"channels of {type(self).__name__} cannot be removed")

    def copy_weights_from(self, trained: Generator) -> None:
        """Take the weights of a trained generator; raises RuntimeError if they do not fit."""
        self.load_state_dict(trained.state_dict())


def count_items(shapes: Mapping[str, Sequence[int]], prefix: str) -> int:
    """Return the number of items of a list of modules: of the numbers that follow `prefix` and a dot in the keys."""
    start = f"{prefix}."
    return len({key[len(start) :].partition(".")[0] for key in shapes if key.startswith(start)})


def halve(x: Tensor) -> Tensor:
    """Keep every second row and column: float32[N, C, H, W] -> float32[N, C, H/2, W/2]."""
    return x[:, :, ::2, ::2]


def patches_from_pixels(x: Tensor, patch_px: int) -> Tensor:
    """Turn squares of P x P pixels into channels: float32[N, C, H, W] -> float32[N, P^2 C, H / P, W / P].

    The channels are ordered by row, column, colour, which is the order of the bytes of a frame: whole rows of patches
    can be moved at once. `torch.pixel_unshuffle` orders them by colour first.
    """
    count, channels, height, width = x.shape
    rows, columns = height // patch_px, width // patch_px
    split = x.reshape(count, channels, rows, patch_px, columns, patch_px)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(count, patch_px**2 * channels, rows, columns)


def pixels_from_patches(x: Tensor, patch_px: int) -> Tensor:
    """Invert `patches_from_pixels`: float32[N, P^2 C, H / P, W / P] -> float32[N, C, H, W]."""
    count, channels, rows, columns = x.shape
    split = x.reshape(count, patch_px, patch_px, channels // patch_px**2, rows, columns)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // patch_px**2, rows * patch_px, columns * patch_px)


def run_padded(network: nn.Module, x: Tensor, *, multiple_of: int) -> Tensor:
    """Run a network on float32[N, C, H, W] of any height and width, and return the same size.

    The last row and column are repeated up to the next multiple, and the result is cropped.
    """
    height, width = x.shape[2:]
    missing = (-height % multiple_of, -width % multiple_of)
    if any(missing):
        x = F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
    output: Tensor = network(x)
    return output[:, :, :height, :width]


def nchw_from_frames(frames: Tensor, generator: Generator) -> Tensor:
    """Convert uint8[N, H, W, 3] BGR to float32[N, 3, H, W] in [0, 1], in the generator's channel order."""
    ordered = frames.flip(3) if generator.channel_order == "RGB" else frames
    return ordered.permute(0, 3, 1, 2).float().div(255)


def restore_nchw(network: nn.Module, blurred: Tensor, generator: Generator) -> Tensor:
    """Restore float32[N, 3, H, W] in [0, 1], any height and width; the result is not clipped.

    `network`: the `generator`, or what wraps it (`torch.compile`, DistributedDataParallel). Channels are in the
    generator's order.
    """
    low, high = generator.pixel_range
    output = run_padded(network, blurred * (high - low) + low, multiple_of=generator.multiple_of)
    return (output.float() - low) / (high - low)


def restore_frames(generator: Generator, frames: Tensor) -> Tensor:
    """Restore uint8[N, H, W, 3] BGR of any height and width; the result is clipped and rounded to uint8."""
    with torch.inference_mode():
        restored = restore_nchw(generator, nchw_from_frames(frames, generator), generator)
        codes = restored.mul(255).clamp(0, 255).round()
    ordered = codes.flip(1) if generator.channel_order == "RGB" else codes
    return ordered.permute(0, 2, 3, 1).to(torch.uint8)
