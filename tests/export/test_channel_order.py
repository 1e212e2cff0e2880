"""RGB networks become BGR networks that give the same images, without a swap in the graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.graph.channel_order import to_bgr_order
from export.graph.fuse import fuse_convolutions
from export.quantization.precision import prepare_for_quantization
from export.torch_to_onnx import export_to_onnx
from tests.export.test_fuse import REDUCED
from train.models import Generator, create_generator


class Net(Generator):
    """Network float32[N, 3, H, W] -> the same that computes any function of its convolutions."""

    multiple_of = 1

    def __init__(self, compute: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)
        self.wide, self.mask = nn.Conv2d(8, 3, 1), nn.Conv2d(3, 1, 1)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def run(model: onnx.ModelProto, nchw: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: nchw})[0]


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def require_same_images(core: onnx.ModelProto, bgr: onnx.ModelProto, *, side: int = 16) -> None:
    nchw = np.random.default_rng(0).random((2, 3, side, side), dtype=np.float32)
    expected = run(core, nchw)[:, ::-1]
    assert np.abs(run(bgr, np.ascontiguousarray(nchw[:, ::-1])) - expected).max() < 1e-5
    assert np.abs(expected - expected[:, ::-1]).max() > 0.01  # otherwise a missing swap would not be noticed


FOLDED = {
    "residual": lambda net, x: x + net.last(torch.relu(net.first(x))),
    "no residual": lambda net, x: torch.sigmoid(net.last(net.first(x))),
    "normalised": lambda net, x: x + net.last(net.first((x - net.mean) / (2 * net.mean))),
    "scaled residual": lambda net, x: torch.tanh(x + net.mean * net.last(net.first(x))),
    "joined": lambda net, x: x + net.wide(torch.cat([net.first(x), x], dim=1)),
    "enlarged": lambda net, x: x + F.interpolate(net.last(net.first(F.max_pool2d(x, 2))), scale_factor=2),
    "shared": lambda net, x: x + net.last(net.first(x)) + 0.5 * net.last(torch.relu(net.first(x))),
    "twice": lambda net, x: net.last(net.first(net.last(net.first(x)))),
}


@pytest.mark.parametrize("name", FOLDED)
def test_the_swap_goes_into_the_weights(name: str) -> None:
    core = prepare_for_quantization(export_to_onnx(Net(FOLDED[name])))
    bgr = to_bgr_order(core)
    require_same_images(core, bgr)
    assert "Gather" not in kinds(bgr)
    assert kinds(bgr) == kinds(core)


def consume_residual_twice(net: Net, x: Tensor) -> Tensor:
    """Feed the output of the last convolution, which is in RGB order, to a second convolution."""
    residual = net.last(net.first(x))
    return x + residual + 0.1 * net.last(net.first(residual))


NOT_FOLDED = {
    "one colour alone": lambda net, x: x + net.last(net.first(x)) * x[:, :1],
    "masked": lambda net, x: x + net.last(net.first(x)) * torch.sigmoid(net.mask(x)),
    "channels summed": lambda net, x: x * torch.softmax(net.last(net.first(x)), dim=1),
    "consumed twice": consume_residual_twice,
}


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_a_gather_swaps_if_the_weights_cannot(name: str) -> None:
    core = prepare_for_quantization(export_to_onnx(Net(NOT_FOLDED[name])))
    bgr = to_bgr_order(core)
    require_same_images(core, bgr)
    assert kinds(bgr).count("Gather") == kinds(core).count("Gather") + 2


@pytest.mark.parametrize("name", ["two_stage_cnn", "resnet_unet", pytest.param("swin_deblur", marks=pytest.mark.slow)])
def test_no_generator_needs_a_gather(name: str) -> None:
    torch.manual_seed(0)
    generator = create_generator(name, **REDUCED[name]).eval()
    core = prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))
    bgr = to_bgr_order(core)
    require_same_images(core, bgr, side=generator.multiple_of * (1 if name == "swin_deblur" else 2))
    assert kinds(bgr).count("Gather") == kinds(core).count("Gather")
    assert len(bgr.graph.initializer) == len(core.graph.initializer)
