"""Replacing DepthToSpace changes no bit of the output."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from export.graph.depth_to_space import replace_depth_to_space
from export.torch_to_onnx import export_to_onnx
from tests.export.test_fuse import kinds, run
from train.models import Generator, create_generator


class Shuffling(Generator):
    """One pixel shuffle after a convolution, one after a product, and one after a grouped convolution."""

    multiple_of = 6

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Conv2d(3, 27, 3, padding=1), nn.Conv2d(3, 3, 3, stride=3)
        self.grouped = nn.Conv2d(3, 12, 1, groups=3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = self.up(x)
        doubled = F.pixel_shuffle(torch.cat([x] * 4, dim=1) * 2, 2)
        return self.down(F.pixel_shuffle(wide, 3)) + F.max_pool2d(doubled + F.pixel_shuffle(self.grouped(x), 2), 2)


def test_the_edge_network_computes_the_same_bits_at_any_size() -> None:
    torch.manual_seed(0)
    core = export_to_onnx(create_generator("edge", widths=(8, 8, 16), blocks=(1, 1, 1)))
    replaced = replace_depth_to_space(core)
    assert (kinds(core)["DepthToSpace"], kinds(replaced)["DepthToSpace"]) == (2, 0)
    for height, width in ((4, 8), (12, 4)):
        nchw = np.random.default_rng(0).random((2, 48, height, width), dtype=np.float32)
        assert np.array_equal(run(core, nchw), run(replaced, nchw))


def test_only_shuffles_after_a_plain_convolution_are_replaced() -> None:
    torch.manual_seed(0)
    core = export_to_onnx(Shuffling())
    replaced = replace_depth_to_space(core)
    assert (kinds(core)["DepthToSpace"], kinds(replaced)["DepthToSpace"]) == (3, 2)
    nchw = np.random.default_rng(0).random((1, 3, 12, 18), dtype=np.float32)
    assert np.array_equal(run(core, nchw), run(replaced, nchw))
