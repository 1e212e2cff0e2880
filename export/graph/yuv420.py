"""Cores for 4:2:0 frames, made from cores for BGR frames.

A decoded frame has one luma value a pixel and one U and one V value for each square of 2x2 pixels: half the values of
BGR. The core reads them as they are and adds its residual to them, so that no colour is ever converted: what the
network does not change stays what the decoder gave, for every matrix and range. To the network the values are those of
limited-range BT.709, with the chroma of a square repeated for its four pixels; its residual is converted back with
the chroma of the four pixels averaged. Both are linear, so that they are folded into the first and the last convolution
where these read and write patches of pixels, and are convolutions of 1x1 patches of their own elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.graph.attributes import get_attribute
from export.graph.fuse import fuse_pointwise_ends
from export.graph.node_builder import NodeBuilder
from export.graph.pixel_interface import View
from runtime.patch_colours import Matrix, bgr_from_yuv420, yuv420_from_bgr

_LUMA_CODES, _CHROMA_CODES = 219, 224
"""Codes between black and white, and between the extremes of chroma, in limited range."""
BLACK, NEUTRAL = 16, 128
"""Codes of luma without light and of chroma without colour."""
CODE_RANGE = (float(-NEUTRAL), float(255 - NEUTRAL))
"""Values of the codes 0 and 255 in a core."""
CONVERSION = "yuv"
"""Begin of the names of the nodes that are added to a core, before a dot."""


@dataclass(frozen=True)
class Yuv420View:
    """How a 4:2:0 core reads a frame: as patches of PxP pixels, whose values are codes less 128."""

    patch_px: int
    """Side P of a patch, even. Its 3 P^2 / 2 channels are luma by row and column, then chroma by row, column, U, V."""
    ring: int
    """Number of black patches that the core expects around the frame, where its first convolution has no padding."""
    multiple_of: int
    """Frames are padded until height and width are multiples of this number of pixels."""


def to_yuv420(core: onnx.ModelProto, view: View) -> tuple[onnx.ModelProto, Yuv420View]:
    """Return a core for 4:2:0 frames and how it reads them, from a core for BGR frames.

    `core`: float32[N, 3 P^2, H / P, W / P] BGR in `view.pixel_range`, as `add_pixel_interface` takes it. The result
    takes float32[N, 3 P^2 / 2, H / P + 2 ring, W / P + 2 ring] and returns the same without the ring; both are codes
    less 128. A core of single pixels gets patches of 2x2.
    """
    patch_px = max(2, view.patch_px)
    result = fuse_pointwise_ends(core)
    ends = _find_ends(result.graph) if view.patch_px == patch_px and not view.pixel_range[0] else None
    if ends:
        ring = _fold(result.graph, ends, patch_px=patch_px, white=view.pixel_range[1])
    else:
        ring = 0
        _add_conversions(result.graph, view, patch_px)
    channels = 3 * patch_px**2 // 2
    for value in (result.graph.input[0], result.graph.output[0]):
        shape = ("batch", channels, f"{value.name}_rows", f"{value.name}_columns")
        value.CopyFrom(helper.make_tensor_value_info(value.name, TensorProto.FLOAT, shape))
    del result.graph.value_info[:]
    result = onnx.shape_inference.infer_shapes(result)
    onnx.checker.check_model(result, full_check=True)
    return result, Yuv420View(patch_px, ring, int(np.lcm(view.multiple_of, patch_px)))


def _expand(patch_px: int) -> Matrix:
    """Return the matrix from the channels of a 4:2:0 patch, less their zero, to BGR 0..1: [3 P^2, 3 P^2 / 2]."""
    return bgr_from_yuv420(patch_px) / _codes_per_unit(patch_px)


def _reduce(patch_px: int) -> Matrix:
    """Return the matrix from a BGR residual to the channels of a 4:2:0 patch: [3 P^2 / 2, 3 P^2]."""
    return _codes_per_unit(patch_px)[:, np.newaxis] * yuv420_from_bgr(patch_px)


def _codes_per_unit(patch_px: int) -> Matrix:
    """Return the codes of luma from 0 to 1 and of chroma from -0.5 to 0.5 in limited range: [3 P^2 / 2]."""
    return np.repeat([float(_LUMA_CODES), float(_CHROMA_CODES)], [patch_px**2, patch_px**2 // 2])


def _zero_codes(patch_px: int) -> Matrix:
    """Return the values of black in the channels of a core, which are codes less 128: [3 P^2 / 2]."""
    return np.repeat([float(BLACK - NEUTRAL), 0.0], [patch_px**2, patch_px**2 // 2])


@dataclass(frozen=True)
class _Ends:
    """The convolutions that read the input of a core, its last ones, and the addition of its input to the result."""

    head: onnx.NodeProto
    """The only one with padding: the frame gets a ring of black patches for it."""
    others: list[onnx.NodeProto]
    tails: list[onnx.NodeProto]
    residual: onnx.NodeProto


def _find_ends(graph: onnx.GraphProto) -> _Ends | None:
    """Return the ends of a core that adds its input to its residual, and reads it else in convolutions only."""
    source = graph.input[0].name
    producers = {name: node for node in graph.node for name in node.output}
    residual = producers[graph.output[0].name]
    if residual.op_type != "Add" or list(residual.input).count(source) != 1:
        return None
    readers = [node for node in graph.node if source in node.input and node is not residual]
    heads = [node for node in readers if _keeps_size(node)]
    others = [node for node in readers if not _is_padded(node)]
    tails = list(_find_tails(graph, next(name for name in residual.input if name != source)))
    constants = {tensor.name for tensor in graph.initializer}
    for node in (*readers, *tails):
        if node.op_type != "Conv" or not set(node.input[1:]) <= constants or get_attribute(node, "group", 1) != 1:
            return None
    if len(heads) != 1 or len(heads) + len(others) != len(readers):
        return None
    return _Ends(heads[0], others, tails, residual)


def _find_tails(graph: onnx.GraphProto, value: str) -> Iterator[onnx.NodeProto]:
    """Yield the nodes whose results are only added to give `value`.

    For a value that is also read elsewhere, or that no node computes, the node has no type.
    """
    is_private = sum(list(reader.input).count(value) for reader in graph.node) == 1
    node = next((node for node in graph.node if value in node.output and is_private), onnx.NodeProto())
    if node.op_type == "Add":
        for name in node.input:
            yield from _find_tails(graph, name)
    else:
        yield node


def _is_padded(convolution: onnx.NodeProto) -> bool:
    return any(get_attribute(convolution, "pads", []))


def _keeps_size(convolution: onnx.NodeProto) -> bool:
    """Return whether a convolution pads its input by half its kernel on all sides, and has no stride."""
    kernel = get_attribute(convolution, "kernel_shape", [0])
    is_plain = all(set(get_attribute(convolution, name, [1])) == {1} for name in ("strides", "dilations"))
    has_half = list(get_attribute(convolution, "pads", [])) == [side // 2 for side in kernel] * 2
    return is_plain and has_half and _is_padded(convolution) and len(set(kernel)) == 1


def _fold(graph: onnx.GraphProto, ends: _Ends, *, patch_px: int, white: float) -> int:
    """Rewrite the convolutions for the channels of 4:2:0; return the number of patches around the frame."""
    build = NodeBuilder(CONVERSION)
    for convolution in (*ends.others, ends.head):
        kernel, bias = _read_weights(graph, convolution)
        kernel = np.einsum("ocyx,cj->ojyx", kernel, white * _expand(patch_px))
        bias -= np.einsum("ojyx,j->o", kernel, _zero_codes(patch_px))
        _write_weights(build, convolution, kernel, bias)
    ring = int(kernel.shape[-1] // 2)
    for attribute in ends.head.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [0] * 4
    reduce = _reduce(patch_px) / white
    for convolution in ends.tails:
        kernel, bias = _read_weights(graph, convolution)
        _write_weights(build, convolution, np.einsum("jc,ciyx->jiyx", reduce, kernel), reduce @ bias)
    source = graph.input[0].name
    limits = (build.add_constant([ring] * 2), build.add_constant([-ring] * 2), build.add_constant([2, 3]))
    inner = build.add_node("Slice", source, *limits)
    for node in (*ends.others, ends.residual):
        node.input[:] = [inner if name == source else name for name in node.input]
    nodes = [*build.nodes, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in (*graph.initializer, *build.constants) if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    return ring


def _add_conversions(graph: onnx.GraphProto, view: View, patch_px: int) -> None:
    """Add convolutions of 1x1 patches from 4:2:0 to BGR before a core, and of its residual to 4:2:0 behind it."""
    build = NodeBuilder(CONVERSION)
    source, result = graph.input[0].name, graph.output[0].name
    low, high = view.pixel_range
    expand, reduce = (high - low) * _expand(patch_px), _reduce(patch_px) / (high - low)
    bgr = _add_pointwise(build, source, expand, low - expand @ _zero_codes(patch_px))
    if view.patch_px < patch_px:
        bgr = build.add_node("DepthToSpace", bgr, blocksize=patch_px)
    split = len(build.nodes)
    core_output = f"{CONVERSION}.core_output"
    residual = build.add_node("Sub", core_output, bgr)
    if view.patch_px < patch_px:
        residual = build.add_node("SpaceToDepth", residual, blocksize=patch_px)
    build.add_node("Add", source, _add_pointwise(build, residual, reduce, np.zeros(len(reduce))))
    for node in graph.node:
        node.input[:] = [{source: bgr, result: core_output}.get(name, name) for name in node.input]
        node.output[:] = [core_output if name == result else name for name in node.output]
    build.nodes[-1].output[0] = result
    nodes = [*build.nodes[:split], *graph.node, *build.nodes[split:]]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(build.constants)


def _add_pointwise(build: NodeBuilder, patches: str, matrix: Matrix, bias: Matrix) -> str:
    """Add a convolution that multiplies the channels of each patch by a matrix; return the name of its output."""
    kernel = build.add_constant(matrix[:, :, np.newaxis, np.newaxis].astype(np.float32))
    return build.add_node("Conv", patches, kernel, build.add_constant(bias.astype(np.float32)), kernel_shape=[1, 1])


def _read_weights(graph: onnx.GraphProto, convolution: onnx.NodeProto) -> tuple[Matrix, Matrix]:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kernel, *bias = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in convolution.input[1:])
    return kernel, bias[0] if bias else np.zeros(len(kernel))


def _write_weights(build: NodeBuilder, convolution: onnx.NodeProto, kernel: Matrix, bias: Matrix) -> None:
    names = [build.add_constant(values.astype(np.float32)) for values in (kernel, bias)]
    convolution.input[1:] = names
