"""`edge`: a U-shaped network of plain convolutions that works on patches of 4x4 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.patch_colours import bgr_from_yuv420, yuv420_from_bgr
from train.models.base import ChannelOrder, Generator, patches_from_pixels, pixels_from_patches
from train.models.half_resolution import reduction_kernel

PATCH_PX = 4
Colour = Literal["bgr", "yuv420"]


class PlainBlock(nn.Module):
    """relu(conv(relu(conv(x)))), each convolution initialised as the identity with a little noise.

    It trains like a block with a shortcut around each convolution (Zagoruyko and Komodakis 2017, DiracNets), but runs
    without one: in INT8, an addition costs a rounding and a pass over memory. float32[N, C, H, W] -> the same.
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
    """Blocks at one resolution, with the next lower level between them: float32[N, C, H, W] -> the same."""

    def __init__(self, widths: Sequence[int], blocks: Sequence[int]) -> None:
        """`widths`, `blocks`: numbers of channels and of blocks of this level and of those below."""
        super().__init__()
        width = widths[0]
        self.before = nn.Sequential(*(PlainBlock(width) for _ in range(blocks[0])))
        self.lower = None
        if widths[1:]:
            self.down = nn.Conv2d(width, widths[1], 2, stride=2)
            self.lower = Level(widths[1:], blocks[1:])
            self.up = nn.Conv2d(widths[1], 4 * width, 1)
            self.after = nn.Sequential(*(PlainBlock(width) for _ in range(blocks[0])))

    def forward(self, x: Tensor, coarse: Tensor | None = None) -> Tensor:
        """Return the features; `coarse`: features for the level below, [N, C of the level below, H/2, W/2]."""
        x = self.before(x)  # [N, C, H, W]
        if self.lower is None:
            return x
        below = self.down(x) if coarse is None else self.down(x) + coarse
        below = self.lower(below)  # [N, C of the level below, H/2, W/2]
        x = x + F.pixel_shuffle(self.up(below), 2)  # [N, 4 C, H/2, W/2] -> [N, C, H, W]
        y: Tensor = self.after(x)
        return y


class Trunk(nn.Module):
    """First convolution and levels: float32[N, 48 or 24, H, W] -> features float32[N, widths[0], H, W]."""

    def __init__(self, channels: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.body = Level(widths, blocks)

    def forward(self, x: Tensor) -> Tensor:
        features = self.head(x)
        y: Tensor = features + self.body(features)
        return y


class Edge(Generator):
    """Patches of 4x4 pixels, a U-shaped network of plain 3x3 convolutions, a global residual.

    The same convolutions cost a sixteenth of what they would cost at full resolution, and each level costs less than a
    quarter of the level above. There are no batch statistics: train and eval mode give the same result. `widths`:
    number of channels of each level, from the top down. `blocks`: number of blocks of each level; all levels but the
    last have them twice, on the way down and on the way up. `colour`: values that the convolutions read and write.
    `yuv420` has half as many for a patch: the first convolution reads the chroma of squares of 2x2 pixels, and the
    residual of chroma is repeated for the pixels of a square. The image keeps its chroma in full resolution.
    `half_pass`: whether a network of the same size looks at the image at half the resolution first, for long blur, and
    hands its features to the second level. It costs a quarter more.
    """

    channel_order: ClassVar[ChannelOrder] = "BGR"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    patch_px: ClassVar[int] = PATCH_PX
    feature_layer: ClassVar[str] = "body"
    reduce: Tensor
    from_bgr: Tensor
    to_bgr: Tensor

    def __init__(
        self,
        widths: Sequence[int] = (32, 64, 96),
        blocks: Sequence[int] = (1, 1, 2),
        colour: Colour = "bgr",
        half_pass: bool = False,  # noqa: FBT001, FBT002 - an option of a recipe, given by name
    ) -> None:
        super().__init__()
        if half_pass and len(widths) < 2:
            raise ValueError("half_pass needs two levels: give two widths")
        if colour not in get_args(Colour):
            raise ValueError(f"colour must be {' or '.join(get_args(Colour))}, got {colour!r}")
        if not widths or len(widths) != len(blocks) or min(*widths, *blocks) < 1:
            raise ValueError(f"widths and blocks must be as many, each at least 1, got {widths} and {blocks}")
        self.levels = len(widths)
        self.multiple_of = PATCH_PX * 2 ** (self.levels - 1 + half_pass)
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
        self.coarse = None
        if half_pass:
            self.coarse = Trunk(channels, widths, blocks)
            self.join = nn.Conv2d(widths[0], widths[1], 1)
            self.register_buffer("reduce", _halving_kernel(), persistent=False)
        with torch.no_grad():
            self.tail.weight.mul_(0.1)  # training begins near the blurred image

    def forward(self, x: Tensor) -> Tensor:
        return pixels_from_patches(self.core(patches_from_pixels(x, PATCH_PX)), PATCH_PX)

    def core(self, x: Tensor) -> Tensor:  # [N, 48, H/4, W/4] -> the same
        return x + self.compute_residual(x)

    def compute_residual(self, patches: Tensor) -> Tensor:  # [N, 48, H/4, W/4] -> the same
        has_yuv = self.colour == "yuv420"
        features = self.head(F.conv2d(patches, self.from_bgr) if has_yuv else patches)  # [N, widths[0], H/4, W/4]
        features = features + self.body(features, self._look_at_half(patches))
        residual: Tensor = self.tail(features)  # [N, 48 or 24, H/4, W/4]
        return F.conv2d(residual, self.to_bgr) if has_yuv else residual

    def _look_at_half(self, patches: Tensor) -> Tensor | None:
        """Return features of the image at half the resolution, float32[N, widths[1], H/8, W/8], if it is looked at."""
        if self.coarse is None:
            return None
        halved = F.conv2d(patches, self.reduce, stride=2)  # [N, 48, H/8, W/8]
        halved = F.conv2d(halved, self.from_bgr) if self.colour == "yuv420" else halved
        features: Tensor = self.join(self.coarse(halved))
        return features

    def copy_weights_from(self, trained: Generator) -> None:
        """Take the weights of an `edge` of the same or a smaller size; the output stays the same.

        Channels that `trained` lacks keep their initial weights, and no channel of `trained` reads them. Blocks that it
        lacks become the identity (Chen, Goodfellow and Shlens 2016, Net2Net). Levels that it lacks keep their initial
        weights, and add nothing at first; so does a pass at half the resolution, which begins as `trained`. If it has
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
        last_level = "body" + ".lower" * (trained.levels - 1)
        for own_name, weight in weights.items():
            name = own_name if own_name in trained_weights else own_name.removeprefix("coarse.")
            if name in trained_weights:
                _copy_into_corner(weight, trained_weights[name], name)
            elif name.startswith((f"{last_level}.up.", "join.")):
                nn.init.zeros_(weight)
            elif not name.startswith((f"{last_level}.down.", f"{last_level}.lower.")):
                nn.init.zeros_(weight) if weight.ndim == 1 else nn.init.dirac_(weight)


def _copy_into_corner(weight: Tensor, source: Tensor, name: str) -> None:
    """Copy a smaller `source` to the first channels of a weight, which then read no others."""
    if any(size > own for size, own in zip(source.shape, weight.shape, strict=True)):
        raise RuntimeError(f"{name} is larger there: {list(source.shape)}, {list(weight.shape)} here")
    weight[: len(source)] = 0
    weight[tuple(slice(size) for size in source.shape)] = source


def _halving_kernel() -> Tensor:
    """Return the convolution from 2x2 patches to the patch of their image at half the resolution: [48, 48, 2, 2]."""
    kernel = reduction_kernel(PATCH_PX)  # from one patch of twice the side
    split = kernel.reshape(len(kernel), 2, PATCH_PX, 2, PATCH_PX * 3)  # row and column of the patch, and within it
    return split.permute(0, 2, 4, 1, 3).reshape(len(kernel), -1, 2, 2).contiguous()


def _convert_ends(weights: dict[str, Tensor], *, to: Colour) -> None:
    """Replace the weights of the first and the last convolution by those for other colours."""
    to_bgr, to_yuv = (torch.tensor(make(PATCH_PX), dtype=torch.float64) for make in (bgr_from_yuv420, yuv420_from_bgr))
    before, after = (to_bgr, to_yuv) if to == "yuv420" else (to_yuv, to_bgr)
    for name in ("head.weight", "coarse.head.weight"):
        if name in weights:
            weights[name] = torch.einsum("ocyx,cj->ojyx", weights[name].double(), before)
    weights["tail.weight"] = torch.einsum("jc,ciyx->jiyx", after, weights["tail.weight"].double())
    weights["tail.bias"] = after @ weights["tail.bias"].double()
