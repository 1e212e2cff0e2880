"""The interface that other programs ask for as graph nodes: float32[1, 3, H, W] RGB in 0..1 in, the same shape out.

FFmpeg's `dnn_processing` (back end `onnx`), vs-mlrt and other hosts convert frames themselves, one at a time.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graph.channel_order import to_bgr_order
from export.graph.node_builder import NodeBuilder
from export.graph.pixel_interface import INPUT, OUTPUT, View, add_distance_to_multiple


def add_float_interface(core: onnx.ModelProto, view: View, *, name: str) -> onnx.ModelProto:
    """Wrap a core that works in BGR order for hosts that give and take float32[1, 3, H, W] RGB in 0..1, of any size.

    `core`: as for `add_pixel_interface`. Frames are padded to its multiple by repeating the last row and column, and
    cropped back. The result is clipped to 0..1. `name`: name of the graph.
    """
    model = to_bgr_order(core, patch_px=view.patch_px)  # swaps red and blue, also back to RGB
    graph = model.graph
    build = NodeBuilder("floats")
    size = _add_input_nodes(build, graph.input[0].name, view)
    split = len(build.nodes)
    _add_output_nodes(build, graph.output[0].name, size, view)
    nodes = [*build.nodes[:split], *graph.node, *build.nodes[split:]]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(build.constants)
    width, height = view.size or ("width", "height")
    shape = (1, 3, height, width)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape))
    graph.name = name
    model.doc_string = "float32[1, 3, height, width], RGB in 0..1, in and out"
    onnx.checker.check_model(model, full_check=True)
    return model


def _add_input_nodes(build: NodeBuilder, core_input: str, view: View) -> str:
    """Add the nodes from the frame to the tensor `core_input`; return the name of the frame's height and width."""
    size, frame = "", INPUT
    if view.multiple_of > 1:
        size = build.add_node("Shape", frame, start=2, end=4)
        missing = add_distance_to_multiple(build, size, view.multiple_of)
        pads = build.add_node("Concat", build.add_constant([0] * 6), missing, axis=0)
        frame = build.add_node("Pad", frame, pads, mode="edge")
    if view.patch_px > 1:
        frame = build.add_node("SpaceToDepth", frame, blocksize=view.patch_px)
    low, high = view.pixel_range
    if high - low != 1:
        frame = build.add_node("Mul", frame, build.add_constant(np.float32(high - low)))
    if low:
        frame = build.add_node("Add", frame, build.add_constant(np.float32(low)))
    if frame == INPUT:
        build.add_node("Identity", frame)
    build.nodes[-1].output[0] = core_input
    return size


def _add_output_nodes(build: NodeBuilder, values: str, size: str, view: View) -> None:
    """Add the nodes from the core's output to the restored frame, cropped to `size` and clipped."""
    low, high = view.pixel_range
    if low:
        values = build.add_node("Sub", values, build.add_constant(np.float32(low)))
    if high - low != 1:
        values = build.add_node("Mul", values, build.add_constant(np.float32(1 / (high - low))))
    if view.patch_px > 1:
        values = build.add_node("DepthToSpace", values, blocksize=view.patch_px)
    if size:
        values = build.add_node("Slice", values, build.add_constant([0, 0]), size, build.add_constant([2, 3]))
    build.add_node("Clip", values, build.add_constant(np.float32(0)), build.add_constant(np.float32(1)))
    build.nodes[-1].output[0] = OUTPUT
