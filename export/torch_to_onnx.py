"""Conversion of a generator from PyTorch to float ONNX."""

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
"""ONNX opset of all exports; TensorRT 10.3 (JetPack 6) reads up to 20."""


def get_view(generator: Generator) -> View:
    """Return the pixel values and sizes that a generator's core expects."""
    return View(generator.pixel_range, generator.multiple_of, generator.patch_px)


def export_to_onnx(generator: Generator) -> onnx.ModelProto:
    """Return the core network: float32[N, C, H, W] -> the same, for any N and all H and W that the network allows.

    C is 3. For a network that works on patches of P x P pixels, C is 3 P^2, and H and W count patches.
    """
    step = generator.multiple_of // generator.patch_px
    example = torch.zeros(2, 3 * generator.patch_px**2, 8 * step, 12 * step)
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
    buffer = io.BytesIO()
    # The exporter warns about every torchvision operator that it cannot find; no generator uses one.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
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
    program.save(buffer)  # type: ignore[arg-type] # a binary stream works too
    model = onnx.load_from_string(buffer.getvalue())
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces of the exporter, with paths of this machine
    onnx.checker.check_model(model, full_check=True)
    return model


class _Core(nn.Module):
    """A generator's `core` as a module, which is what torch exports."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        return self.generator.core(x)
