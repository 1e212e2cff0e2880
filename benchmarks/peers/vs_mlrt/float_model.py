"""The float export of a bundled network, for hosts that convert frames themselves."""

from __future__ import annotations

from pathlib import Path

import onnx

from export.graph.channel_order import to_bgr_order
from export.graph.float_interface import add_float_interface
from export.graph.fuse import fuse_convolutions
from export.torch_to_onnx import export_to_onnx, get_view
from train.checkpoint import load_generator


def write_float_model(run: Path, out: Path) -> None:
    """Write the fused network of a published run as float32[1, 3, H, W] RGB in 0..1 in and out."""
    generator, _ = load_generator(run)
    core = fuse_convolutions(export_to_onnx(generator))
    bgr_core = to_bgr_order(core) if generator.channel_order == "RGB" else core
    onnx.save(add_float_interface(bgr_core, get_view(generator), name=run.name), str(out))
