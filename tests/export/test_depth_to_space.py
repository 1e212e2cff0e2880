"""Pixel-shuffles made of moves give the same, to the bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from export.graph.depth_to_space import in_runs
from export.torch_to_onnx import onnx_from_generator
from tests.export.test_fuse import kinds, run
from train.models import Generator, create_generator


class Shuffling(Generator):
    """A shuffle after a convolution, one after a product, and one after a convolution of groups."""

    multiple_of = 6

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(3, 27, 3, padding=1), nn.Conv2d(3, 3, 3, stride=3)
        self.apart = nn.Conv2d(3, 12, 1, groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.up(x)
        doubled = F.pixel_shuffle(torch.cat([x] * 4, dim=1) * 2, 2)
        return self.down(F.pixel_shuffle(wide, 3)) + F.max_pool2d(doubled + F.pixel_shuffle(self.apart(x), 2), 2)


def test_the_edge_network_computes_the_same_bits_at_any_size() -> None:
    torch.manual_seed(0)
    core = onnx_from_generator(create_generator("edge", widths=(8, 8, 16), blocks=(1, 1, 1)))
    moved = in_runs(core)
    assert (kinds(core)["DepthToSpace"], kinds(moved)["DepthToSpace"]) == (2, 0)
    for height, width in ((4, 8), (12, 4)):
        picture = np.random.default_rng(0).random((2, 48, height, width), dtype=np.float32)
        assert np.array_equal(run(core, picture), run(moved, picture))


def test_other_blocks_too_but_only_where_channels_may_change_places() -> None:
    torch.manual_seed(0)
    core = onnx_from_generator(Shuffling())
    moved = in_runs(core)
    assert (kinds(core)["DepthToSpace"], kinds(moved)["DepthToSpace"]) == (3, 2)
    picture = np.random.default_rng(0).random((1, 3, 12, 18), dtype=np.float32)
    assert np.array_equal(run(core, picture), run(moved, picture))
