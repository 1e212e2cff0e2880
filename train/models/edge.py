"""`edge`: a U-shaped network of plain convolutions that works on patches of 4x4 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.patch_colours import bgr_from_yuv420, yuv420_from_bgr
from train.models.base import ChannelOrder, Generator, patches_from_pixels, pixels_from_patches
from train.models.channels import FIXED, Layer
from train.models.edge_levels import Level
from train.models.half_pass import HalfPass

PATCH_PX = 4
Colour = Literal["bgr", "yuv420"]


class Edge(Generator):
    """Patches of 4x4 pixels, a U-shaped network of plain 3x3 convolutions, a global residual.

    The same convolutions cost a sixteenth of what they would cost at full resolution, and each level costs less than a
    quarter of the level above. There are no batch statistics: train and eval mode give the same result. `widths`:
    number of channels of each level, from the top down. `blocks`: number of blocks of each level; all levels but the
    last have them twice, on the way down and on the way up. `colour`: values that the convolutions read and write.
    `yuv420` has half as many for a patch: the first convolution reads the chroma of squares of 2x2 pixels, and the
    residual of chroma is repeated for the pixels of a square. The image keeps its chroma in full resolution.
    `half_pass`: whether a second network sees the image at half the resolution first, for long blur. Its features are
    added to those of the second level, and its residual to that of the full resolution, each in a learned share for
    each patch. `half_widths`, `half_blocks`: its size, by default that of the network, which costs a quarter to a third
    more.
    """

    channel_order: ClassVar[ChannelOrder] = "BGR"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    patch_px: ClassVar[int] = PATCH_PX
    feature_layer: ClassVar[str] = "body"
    checkpointed_parts: ClassVar[tuple[str, ...]] = (r".*\.(before|after)",)
    from_bgr: Tensor
    to_bgr: Tensor

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96),
        blocks: Sequence[int] = (1, 1, 2),
        colour: Colour = "bgr",
        *,
        half_pass: bool = False,
        half_widths: Sequence[int] = (),
        half_blocks: Sequence[int] = (),
    ) -> None:
        super().__init__()
        if half_pass and len(widths) < 2:
            raise ValueError("half_pass needs two levels: give two widths")
        if colour not in get_args(Colour):
            raise ValueError(f"colour must be {' or '.join(get_args(Colour))}, got {colour!r}")
        if bool(half_widths) != bool(half_blocks) or (half_widths and not half_pass):
            raise ValueError("half_widths and half_blocks are given together, and with half_pass")
        half_size = (half_widths or widths, half_blocks or blocks)
        for size in ((widths, blocks), half_size):
            if not size[0] or len(size[0]) != len(size[1]) or min(*size[0], *size[1]) < 1:
                raise ValueError(f"widths and blocks must be as many, each at least 1, got {size[0]} and {size[1]}")
        self.levels, self.widths = len(widths), tuple(widths)
        self._half_is_alike = not half_widths
        self.half_levels = len(half_size[0]) if half_pass else 0
        lowest_level = max(self.levels, self.half_levels + 1)
        self.multiple_of = PATCH_PX * 2 ** (lowest_level - 1)
        self.colour = colour
        channels = 3 * PATCH_PX**2
        if colour == "yuv420":
            channels //= 2
            for name, matrix in (("from_bgr", yuv420_from_bgr(PATCH_PX)), ("to_bgr", bgr_from_yuv420(PATCH_PX))):
                kernel = torch.tensor(matrix, dtype=torch.float32)[:, :, None, None]
                self.register_buffer(name, kernel, persistent=False)
        self.head = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.body = Level(widths, blocks)
        self.tail = nn.Conv2d(widths[0], channels, 3, padding=1)
        self.coarse = HalfPass(channels, *half_size, full_widths=widths, patch_px=PATCH_PX) if half_pass else None
        with torch.no_grad():
            for tail in [self.tail, self.coarse.tail] if self.coarse else [self.tail]:
                tail.weight.mul_(0.1)  # training begins near the blurred image

    def forward(self, x: Tensor) -> Tensor:
        return pixels_from_patches(self.core(patches_from_pixels(x, PATCH_PX)), PATCH_PX)

    def core(self, x: Tensor) -> Tensor:  # [N, 48, H/4, W/4] -> the same
        return x + self.compute_residual(x)

    def compute_residual(self, patches: Tensor) -> Tensor:  # [N, 48, H/4, W/4] -> the same
        features = self.head(self._to_own_colour(patches))  # [N, widths[0], H/4, W/4]
        if self.coarse is None:
            return self._to_bgr(self.tail(features + self.body(features)))
        halved = F.conv2d(patches, self.coarse.reduce, stride=2)  # [N, 48, H/8, W/8]
        half_features = self.coarse.trunk(self._to_own_colour(halved))  # [N, widths[0], H/8, W/8]
        features = features + self.body(features, self.coarse.join(half_features))
        share, half_share = self.coarse.compute_shares(features, half_features)
        residual = self._to_bgr(self.tail(share * features))  # [N, 48, H/4, W/4]
        half_residual = self._to_bgr(self.coarse.tail(half_share * half_features))  # [N, 48, H/8, W/8]
        return residual + self.coarse.enlarge_residual(half_residual)

    def _to_own_colour(self, patches: Tensor) -> Tensor:
        return F.conv2d(patches, self.from_bgr) if self.colour == "yuv420" else patches

    def _to_bgr(self, residual: Tensor) -> Tensor:
        return F.conv2d(residual, self.to_bgr) if self.colour == "yuv420" else residual

    def list_layers(self) -> list[Layer]:
        """Return the layers with their channels: those of a level, and those inside of each block."""
        layers = [
            Layer("head", (FIXED,), ("1",)),
            *self.body.list_layers("body.", "1"),
            Layer("tail", ("1",), (FIXED,)),
        ]
        return layers + (self.coarse.list_layers("coarse.") if self.coarse else [])

    def copy_weights_from(self, trained: Generator) -> None:
        """Take the weights of an `edge` of the same or a smaller size; the output stays the same.

        Channels that `trained` lacks keep their initial weights, and no channel of `trained` reads them. Blocks that it
        lacks become the identity (Chen, Goodfellow and Shlens 2016, Net2Net). Levels that it lacks keep their initial
        weights, and add nothing at first. All this holds for the pass at half the resolution too. If `trained` lacks
        that pass and it has the size of this network, it begins as `trained`: then the residual is the mean of those at
        both resolutions. A new pass of another size keeps its initial weights (`copy_half_pass_from`). If `trained` has
        other colours, the conversion goes into the first and the last convolution; to `yuv420`, the output changes by
        the chroma within squares of 2x2 pixels. Raises RuntimeError if it does not fit.
        """
        if not isinstance(trained, Edge):
            raise RuntimeError("it is of another kind")  # noqa: TRY004 - as load_state_dict
        weights, trained_weights = self.state_dict(), trained.state_dict()
        if trained.colour != self.colour:
            _convert_ends(trained_weights, to=self.colour)
        if missing := trained_weights.keys() - weights.keys():
            raise RuntimeError(f"it has more blocks or levels: {min(missing)}")
        gains_pass = self.coarse is not None and trained.coarse is None
        zero, random = _list_new_parts(trained, gains_pass=gains_pass)
        for own_name, weight in weights.items():
            name = own_name
            if gains_pass and self._half_is_alike:
                name = own_name.removeprefix("coarse.").removeprefix("trunk.")
            if name in trained_weights:
                _copy_into_corner(weight, trained_weights[name], name)
                if gains_pass and name == "tail.bias":
                    weight.div_(2)  # the shares do not scale it
            elif name.startswith(zero):
                nn.init.zeros_(weight)
            elif not name.startswith(random):
                nn.init.zeros_(weight) if weight.ndim == 1 else nn.init.dirac_(weight)

    def copy_half_pass_from(self, trained: Generator) -> None:
        """Let the pass at half the resolution begin as `trained`, an `edge` without one, of the pass's size.

        The residual is then the mean of that of the full resolution and that of `trained`. Raises RuntimeError if it
        does not fit.
        """
        if self.coarse is None:
            raise RuntimeError("the network has no pass at half the resolution")
        if not isinstance(trained, Edge) or trained.coarse is not None:
            raise RuntimeError("it is of another kind")
        weights = trained.state_dict()
        if trained.colour != self.colour:
            _convert_ends(weights, to=self.colour)
        tail = {name.removeprefix("tail."): weights.pop(name) for name in ("tail.weight", "tail.bias")}
        tail["bias"] = tail["bias"] / 2  # the shares do not scale it
        self.coarse.tail.load_state_dict(tail)
        self.coarse.trunk.load_state_dict(weights)


def _list_new_parts(trained: Edge, *, gains_pass: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return how the names of weights begin that `trained` lacks: those that become 0, those that stay random.

    They are the levels below its last ones, and the parts that join a new pass with the network.
    """
    last_levels = ["body" + ".lower" * (trained.levels - 1)]
    if trained.coarse is not None:
        last_levels.append("coarse.trunk.body" + ".lower" * (trained.half_levels - 1))
    zero = [f"{level}.up." for level in last_levels]
    random = [f"{level}.{part}." for level in last_levels for part in ("down", "lower")]
    if gains_pass:
        zero += ["join.", "coarse.join."]
        random += ["full_input.", "half_input.", "share.", "coarse."]
    return tuple(zero), tuple(random)


def _copy_into_corner(weight: Tensor, source: Tensor, name: str) -> None:
    """Copy a smaller `source` to the first channels of a weight, which then read no others."""
    if any(size > own for size, own in zip(source.shape, weight.shape, strict=True)):
        raise RuntimeError(f"{name} is larger there: {list(source.shape)}, {list(weight.shape)} here")
    weight[: len(source)] = 0
    weight[tuple(slice(size) for size in source.shape)] = source


def _convert_ends(weights: dict[str, Tensor], *, to: Colour) -> None:
    """Replace the weights of the first and the last convolution by those for other colours."""
    to_bgr, to_yuv = (torch.tensor(make(PATCH_PX), dtype=torch.float64) for make in (bgr_from_yuv420, yuv420_from_bgr))
    before, after = (to_bgr, to_yuv) if to == "yuv420" else (to_yuv, to_bgr)
    for name in ("head.weight", "coarse.trunk.head.weight"):
        if name in weights:
            weights[name] = torch.einsum("ocyx,cj->ojyx", weights[name].double(), before)
    for tail in ("tail", "coarse.tail"):
        if f"{tail}.weight" in weights:
            weights[f"{tail}.weight"] = torch.einsum("jc,ciyx->jiyx", after, weights[f"{tail}.weight"].double())
            weights[f"{tail}.bias"] = after @ weights[f"{tail}.bias"].double()
