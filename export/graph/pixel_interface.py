"""The pixel contract as graph nodes: uint8[N, H, W, 3] BGR in, the same out.

Whatever runs the engine sees the same padding, scaling, clipping and rounding, and copies bytes instead of floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graph.node_builder import Nodes
from runtime.spec import METADATA_KEY, EngineSpec

INPUT, OUTPUT = "blurred", "sharp"


@dataclass(frozen=True)
class View:
    """How a core sees frames."""

    pixel_range: tuple[float, float]
    """Values of black and of full white."""
    multiple_of: int
    """Frames are padded to this."""
    patch_px: int = 1
    """Side of the squares of pixels that are the channels of one place."""


def with_pixel_interface(
    core: onnx.ModelProto, view: View, *, spec: EngineSpec, in_bytes: bool = False
) -> onnx.ModelProto:
    """Wrap a BGR network so that it takes and gives 8-bit frames of any size.

    Frames are padded to the network's multiple by repeating the last row and column, and
    cropped back. `spec` goes into the metadata. What was the network's input keeps its name.

    `in_bytes`: frames are moved as the bytes that they are, and only their scale is told, which
    CPUs fuse with a network that is quantised from end to end; black must be 0. TensorRT neither
    pads nor moves bytes: without `in_bytes` frames are floats first.
    """
    if in_bytes and view.pixel_range[0]:
        raise ValueError(f"frames stay bytes only where black is 0, it is {view.pixel_range[0]}")
    model = onnx.ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    build = Nodes("pixels")
    side = view.patch_px
    frames = INPUT if in_bytes else build.node("Cast", INPUT, to=TensorProto.FLOAT)
    if view.multiple_of > 1:
        size = build.node("Shape", INPUT, start=1, end=3)
        missing = build.node("Mod", build.node("Neg", size), build.constant([view.multiple_of]))
        pads = build.node("Concat", build.constant([0] * 5), missing, build.constant([0]), axis=0)
        frames = build.node("Pad", frames, pads, mode="edge")
    if side > 1:
        frames = build.squares(frames, side, 3)
    _values(build, build.node("Transpose", frames, perm=[0, 3, 1, 2]), view, in_bytes=in_bytes)
    build.nodes[-1].output[0] = graph.input[0].name
    split = len(build.nodes)

    codes = _codes_there(graph) if in_bytes else None
    codes = codes or _codes(build, graph.output[0].name, view, in_bytes=in_bytes)
    frames = build.node("Transpose", codes, perm=[0, 2, 3, 1])
    if side > 1:
        frames = build.rows(frames, side, 3)
    if view.multiple_of > 1:
        frames = build.node("Slice", frames, build.constant([0, 0]), size, build.constant([1, 2]))
    if not in_bytes:
        build.node("Cast", frames, to=TensorProto.UINT8)
    build.nodes[-1].output[0] = OUTPUT

    nodes = [*build.nodes[:split], *graph.node, *build.nodes[split:]]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(build.constants)
    shape = ["batch", "height", "width", 3]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.UINT8, shape))
    graph.name = spec.name
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _values(build: Nodes, codes: str, view: View, *, in_bytes: bool) -> None:
    """8-bit codes -> what the network sees."""
    low, high = view.pixel_range
    scale = build.constant(np.float32((high - low) / 255))
    if in_bytes:
        build.node("DequantizeLinear", codes, scale, build.constant(np.uint8(0)))
        return
    values = build.node("Mul", codes, scale)
    if low:
        build.node("Add", values, build.constant(np.float32(low)))


def _codes(build: Nodes, values: str, view: View, *, in_bytes: bool) -> str:
    """What the network gives -> 8-bit codes, clipped and rounded."""
    low, high = view.pixel_range
    if in_bytes:
        scale = build.constant(np.float32((high - low) / 255))
        return build.node("QuantizeLinear", values, scale, build.constant(np.uint8(0)))
    if low:
        values = build.node("Sub", values, build.constant(np.float32(low)))
    codes = build.node("Mul", values, build.constant(np.float32(255 / (high - low))))
    codes = build.node("Clip", codes, build.constant(np.float32(0)), build.constant(np.float32(255)))
    return build.node("Round", codes)


def _codes_there(graph: onnx.GraphProto) -> str | None:
    """The codes that a core quantised to the range of pixels ends with, freed from the scale that it puts to them."""
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    if last.op_type != "DequantizeLinear":
        return None
    graph.node.remove(last)
    codes: str = last.input[0]
    return codes
