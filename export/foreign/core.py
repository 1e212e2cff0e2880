"""The core of a foreign network: float32[N, 3, H, W] -> the same, with layout, types, gray and residual as nodes."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.foreign.normalize import PREFIX, normalize
from export.foreign.ranges import UNIT, Factors, PixelRange, compute_conversion
from export.foreign.session import Form
from export.foreign.signature import ImageInput
from export.foreign.way import LUMA_BGR, Way
from export.graph.node_builder import NodeBuilder

CORE_INPUT, CORE_OUTPUT = "core_input", "core_output"


def build_core(model: onnx.ModelProto, image: ImageInput, form: Form, way: Way) -> onnx.ModelProto:
    """Return the core of a foreign network, in its own channel order (BGR for gray) and pixel range.

    `model`: a result of `read_model`. Images of any number per call, if the network takes that.
    """
    core = normalize(model)
    graph = core.graph
    build = NodeBuilder("view")
    source, result = f"{PREFIX}{image.name}", f"{PREFIX}{way.output}"
    gray = _add_input_nodes(build, core, image, form, way, source=source)
    split = len(build.nodes)
    _add_output_nodes(build, graph, form, way, result=result, gray=gray)
    nodes = [*build.nodes[:split], *graph.node, *build.nodes[split:]]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(build.constants)
    _remove_unused(graph, CORE_OUTPUT)
    width, height = image.size or ("columns", "rows")
    shape = (image.batch or "batch", 3, height, width)
    graph.input.append(helper.make_tensor_value_info(CORE_INPUT, TensorProto.FLOAT, shape))
    graph.output.append(helper.make_tensor_value_info(CORE_OUTPUT, TensorProto.FLOAT, shape))
    onnx.checker.check_model(core, full_check=True)
    return core


def get_core_range(way: Way) -> PixelRange:
    """Return the range of the images of a core: that of the network's input, or 0..1 where channels differ in it."""
    return way.range if way.range.is_plain else UNIT


def _add_input_nodes(
    build: NodeBuilder, core: onnx.ModelProto, image: ImageInput, form: Form, way: Way, *, source: str
) -> str:
    """Add the nodes from the core's input to the network's; return the name of the gray image, if there is one."""
    values, gray = CORE_INPUT, ""
    if form.channels == 1:
        kernel = build.add_constant(np.array(LUMA_BGR, np.float32).reshape(1, 3, 1, 1))
        values = gray = build.add_node("Conv", values, kernel, kernel_shape=[1, 1])
    values = _add_affine(build, values, *compute_conversion(get_core_range(way), way.range, way.channels))
    if form.layout == "NHWC":
        values = build.add_node("Transpose", values, perm=[0, 2, 3, 1])
    if image.data_type == TensorProto.UINT8 and not _takes_floats(core, source):
        values = build.add_node("Cast", values, to=TensorProto.UINT8)
    if values == CORE_INPUT:
        values = build.add_node("Identity", values)
    for node in core.graph.node:
        node.input[:] = [values if name == source else name for name in node.input]
    return gray


def _add_affine(build: NodeBuilder, values: str, factor: Factors, offset: Factors) -> str:
    """Add the nodes of values * factor + offset, where they change something; return the result's name."""
    if (factor != 1).any():
        values = build.add_node("Mul", values, build.add_constant(factor[np.newaxis]))
    if offset.any():
        values = build.add_node("Add", values, build.add_constant(offset[np.newaxis]))
    return values


def _takes_floats(core: onnx.ModelProto, source: str) -> bool:
    """Return whether a network for bytes computes the same of floats: if it begins by converting them."""
    floats = onnx.ModelProto()
    floats.CopyFrom(core)
    for value in floats.graph.input:
        if value.name == source:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    try:
        onnx.shape_inference.infer_shapes(floats, check_type=True, strict_mode=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


def _add_output_nodes(
    build: NodeBuilder, graph: onnx.GraphProto, form: Form, way: Way, *, result: str, gray: str
) -> None:
    values = _to_float(build, graph, result)
    if form.outputs[way.output] == "NHWC":
        values = build.add_node("Transpose", values, perm=[0, 3, 1, 2])
    factor, offset = compute_conversion(way.output_range, get_core_range(way), way.channels)
    values = _add_affine(build, values, factor, offset if way.residual == "own" else np.zeros_like(offset))
    if gray:
        # A gray result changes the luma alone: what it differs by is added to all channels.
        if way.residual == "own":
            values = build.add_node("Sub", values, gray)
        operator = "Sub" if way.residual == "subtracted" else "Add"
        values = build.add_node(operator, CORE_INPUT, values)
    elif way.residual != "own":
        values = build.add_node("Add" if way.residual == "added" else "Sub", CORE_INPUT, values)
    if values == result:
        values = build.add_node("Identity", values)
    build.nodes[-1].output[0] = CORE_OUTPUT


def _to_float(build: NodeBuilder, graph: onnx.GraphProto, result: str) -> str:
    """Return the name of the network's output as floats; bytes are those that the network would have returned."""
    value = next(value for value in graph.output if value.name == result)
    if value.type.tensor_type.elem_type != TensorProto.UINT8:
        return result
    last = next((node for node in graph.node if result in node.output), None)
    if last is None or last.op_type != "Cast":
        return build.add_node("Cast", result, to=TensorProto.FLOAT)
    before = next((node for node in graph.node if last.input[0] in node.output), None)
    whole = before is not None and before.op_type in {"Round", "Floor"}
    name: str = last.input[0]
    return name if whole else build.add_node("Floor", name)  # a Cast to bytes cuts off


def _remove_unused(graph: onnx.GraphProto, output: str) -> None:
    """Remove nodes and constants that the output does not depend on: those of further outputs."""
    needed, kept = {output}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)
