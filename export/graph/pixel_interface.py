"""The pixel interface of an engine as graph nodes: uint8[N, H, W, 3] BGR in, the same shape out.

Every host of the engine gets the same padding, scaling, clipping and rounding, and copies bytes instead of floats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graph.node_builder import NodeBuilder
from runtime.frame import Size
from runtime.spec import METADATA_KEY, EngineSpec

INPUT, OUTPUT = "blurred", "sharp"


@dataclass(frozen=True)
class View:
    """Pixel values and sizes that a core expects."""

    pixel_range: tuple[float, float]
    """Values of black and of full white."""
    multiple_of: int
    """Frames are padded until height and width are multiples of this number of pixels."""
    patch_px: int = 1
    """Side P of the square patches of pixels; the core takes the 3 P^2 values of a patch as channels."""
    size: Size | None = None
    """The only width and height that the core takes; None for any."""


def add_pixel_interface(
    core: onnx.ModelProto, view: View, *, spec: EngineSpec, keep_bytes: bool = False
) -> onnx.ModelProto:
    """Wrap a core that works in BGR order into an engine for 8-bit frames of any size, or of `view.size`.

    `core`: float32[N, 3 P^2, H / P, W / P] -> the same, with values in `view.pixel_range`. The tensor that was its
    input keeps its name. Frames are padded to the core's multiple by repeating the last row and column, and cropped
    back. `spec` goes into the metadata.

    `keep_bytes`: frames are padded and moved as bytes, and are the codes of a core that is quantised from end to end.
    Black must be 0, otherwise ValueError is raised. TensorRT neither pads nor moves bytes, so that without `keep_bytes`
    frames are cast to float first.
    """
    if keep_bytes and view.pixel_range[0]:
        raise ValueError(f"frames can be kept as bytes only where black is 0, here it is {view.pixel_range[0]}")
    model = onnx.ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value or "batch"
    build = NodeBuilder("pixels")
    quantized = remove_first_quantize(graph) if keep_bytes else None
    size = _add_input_nodes(build, graph.input[0].name, view, keep_bytes=keep_bytes, quantized=quantized)
    if quantized:
        _separate_convolutions(build, graph, quantized)
    split = len(build.nodes)
    codes = remove_final_dequantize(graph) if keep_bytes else None
    codes = codes or _add_codes(build, graph.output[0].name, view, keep_bytes=keep_bytes)
    _add_output_nodes(build, codes, size, view, keep_bytes=keep_bytes)

    nodes = [*build.nodes[:split], *graph.node, *build.nodes[split:]]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(build.constants)
    width, height = view.size or ("width", "height")
    shape = (batch, height, width, 3)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.UINT8, shape))
    graph.name = spec.name
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _add_input_nodes(
    build: NodeBuilder, core_input: str, view: View, *, keep_bytes: bool, quantized: str | None
) -> str:
    """Add the nodes from the frames to the tensor `core_input`; return the name of the frames' height and width.

    `quantized`: name of the tensor of bytes that the core reads instead, if there is one.
    """
    size = ""
    frames = INPUT if keep_bytes else build.add_node("Cast", INPUT, to=TensorProto.FLOAT)
    if view.multiple_of > 1:
        # Of 8-bit tensors TensorRT documents a Cast alone, so that Shape reads what the Cast returns.
        size = build.add_node("Shape", frames, start=1, end=3)
        missing = add_distance_to_multiple(build, size, view.multiple_of)
        pads = build.add_node("Concat", build.add_constant([0] * 5), missing, build.add_constant([0]), axis=0)
        frames = build.add_node("Pad", frames, pads, mode="edge")
    if view.patch_px > 1:
        frames = build.add_space_to_depth(frames, view.patch_px, 3)
    nchw = build.add_node("Transpose", frames, perm=[0, 3, 1, 2])
    if quantized:
        build.nodes[-1].output[0] = quantized
        return size
    low, high = view.pixel_range
    scale = build.add_constant(np.float32((high - low) / 255))
    if keep_bytes:
        build.add_node("DequantizeLinear", nchw, scale, build.add_constant(np.uint8(0)))
    else:
        values = build.add_node("Mul", nchw, scale)
        if low:
            build.add_node("Add", values, build.add_constant(np.float32(low)))
    build.nodes[-1].output[0] = core_input
    return size


def _separate_convolutions(build: NodeBuilder, graph: onnx.GraphProto, codes: str) -> None:
    """Give every convolution that reads the frames, except the first, bytes of its own.

    Where two read the same dequantised bytes, OpenVINO computes both in float. It joins equal nodes, but it does not
    see that the minimum of a byte and 255 is the byte.
    """
    for dequantize in [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] == codes]:
        readers = [node for node in graph.node if node.op_type == "Conv" and node.input[0] == dequantize.output[0]]
        for convolution in readers[1:]:
            copied = build.add_node("Min", codes, build.add_constant(np.uint8(255)))
            convolution.input[0] = build.add_node("DequantizeLinear", copied, *dequantize.input[1:])


def add_distance_to_multiple(build: NodeBuilder, size: str, multiple: int) -> str:
    """Add ceil(size / multiple) * multiple - size, in operations that TensorRT's builder can bound.

    It cannot bound Mod(-size, multiple), and then plans a scratch buffer of gigabytes for plans of several sizes.
    """
    divisor = build.add_constant([multiple])
    count = build.add_node("Div", build.add_node("Add", size, build.add_constant([multiple - 1])), divisor)
    return build.add_node("Sub", build.add_node("Mul", count, divisor), size)


def _add_output_nodes(build: NodeBuilder, codes: str, size: str, view: View, *, keep_bytes: bool) -> None:
    """Add the nodes from 8-bit codes in NCHW to the restored frames, cropped to `size`."""
    frames = build.add_node("Transpose", codes, perm=[0, 2, 3, 1])
    if view.patch_px > 1:
        frames = build.add_depth_to_space(frames, view.patch_px, 3)
    if view.multiple_of > 1:
        frames = build.add_node("Slice", frames, build.add_constant([0, 0]), size, build.add_constant([1, 2]))
    if not keep_bytes:
        build.add_node("Cast", frames, to=TensorProto.UINT8)
    build.nodes[-1].output[0] = OUTPUT


def _add_codes(build: NodeBuilder, values: str, view: View, *, keep_bytes: bool) -> str:
    """Add the nodes from the core's output to codes 0..255, clipped and rounded; return the name of the codes."""
    low, high = view.pixel_range
    if keep_bytes:
        scale = build.add_constant(np.float32((high - low) / 255))
        return build.add_node("QuantizeLinear", values, scale, build.add_constant(np.uint8(0)))
    if low:
        values = build.add_node("Sub", values, build.add_constant(np.float32(low)))
    codes = build.add_node("Mul", values, build.add_constant(np.float32(255 / (high - low))))
    codes = build.add_node("Clip", codes, build.add_constant(np.float32(0)), build.add_constant(np.float32(255)))
    return build.add_node("Round", codes)


def remove_first_quantize(graph: onnx.GraphProto) -> str | None:
    """Remove the QuantizeLinear at the beginning of a core whose input is quantised to the range of pixels.

    Return the name of the 8-bit codes behind it, or None if the core does not begin with such a node alone.
    """
    readers = [node for node in graph.node if graph.input[0].name in node.input]
    if [node.op_type for node in readers] != ["QuantizeLinear"]:
        return None
    graph.node.remove(readers[0])
    codes: str = readers[0].output[0]
    return codes


def remove_final_dequantize(graph: onnx.GraphProto) -> str | None:
    """Remove the DequantizeLinear at the end of a core whose output is quantised to the range of pixels.

    Return the name of the 8-bit codes before it, or None if the core does not end with such a node.
    """
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    if last.op_type != "DequantizeLinear":
        return None
    graph.node.remove(last)
    codes: str = last.input[0]
    return codes
