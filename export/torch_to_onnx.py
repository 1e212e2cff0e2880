"""Checkpoint to float ONNX: the only file that knows both torch and the published weights."""

from __future__ import annotations

import io
import logging
import warnings

import onnx
import torch
from torch import Tensor, nn

from export.graph.pixel_interface import View
from train.models import Generator

OPSET = 18
"""TensorRT 10.3 (JetPack 6) reads up to 20."""


def view_of(generator: Generator) -> View:
    """How a generator's core sees frames."""
    return View(generator.pixel_range, generator.multiple_of, generator.patch_px)


def onnx_from_generator(generator: Generator) -> onnx.ModelProto:
    """The core network, float32[N, C, H, W] -> the same, with any sizes that the network allows.

    C is 3, or for a network that works on patches of P pixels 3 P^2, H and W being counted in patches.
    """
    step = generator.multiple_of // generator.patch_px
    example = torch.zeros(2, 3 * generator.patch_px**2, 8 * step, 12 * step)
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
    buffer = io.BytesIO()
    # It names every torchvision operator that it cannot find; none is used here.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            _Core(generator).eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: batch, 2: step * rows, 3: step * columns},),
            input_names=["core_input"],
            output_names=["core_output"],
            verbose=False,
        )
    assert program is not None
    program.save(buffer)
    model = onnx.load_from_string(buffer.getvalue())
    for node in model.graph.node:
        del node.metadata_props[:]  # the exporter's stack traces, with paths of this machine
    onnx.checker.check_model(model, full_check=True)
    return model


class _Core(nn.Module):
    """A generator's core as a module, which is what torch exports."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return self.generator.core(x)
