"""The pixel interface of an engine for 4:2:0 frames as graph nodes: the planes of I420 in one array, in and out."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.graph.node_builder import NodeBuilder
from export.graph.pixel_interface import (
    INPUT,
    OUTPUT,
    add_distance_to_multiple,
    remove_final_dequantize,
    remove_first_quantize,
)
from export.graph.yuv420 import BLACK, NEUTRAL, Yuv420View
from runtime.spec import METADATA_KEY, EngineSpec

_TO_THE_END = 1 << 40


def add_yuv420_interface(
    core: onnx.ModelProto, view: Yuv420View, *, spec: EngineSpec, keep_bytes: bool = False
) -> onnx.ModelProto:
    """Wrap a core of `to_yuv420` into an engine: uint8[N, 3 H / 2, W] in and out, H and W even.

    The bytes of a frame are the planes of I420: luma of H x W, then U and V of H/2 x W/2 each. Frames are padded to the
    core's multiple by repeating the last row and column of each plane, and cropped back. The tensor that was the input
    of the core keeps its name. `spec` goes into the metadata. `keep_bytes`: as in `add_pixel_interface`.
    """
    model = onnx.ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    build = NodeBuilder("pixels")
    frames = INPUT if keep_bytes else build.add_node("Cast", INPUT, to=TensorProto.FLOAT)
    size = _FrameSize(build, frames, view.multiple_of)
    _add_patches(build, frames, size, view, keep_bytes=keep_bytes)
    quantized = remove_first_quantize(graph) if keep_bytes else None
    if not quantized:
        _add_values(build, keep_bytes=keep_bytes)
    build.nodes[-1].output[0] = quantized or graph.input[0].name
    split = len(build.nodes)
    codes = remove_final_dequantize(graph) if keep_bytes else None
    codes = codes or _add_codes(build, graph.output[0].name, keep_bytes=keep_bytes)
    _add_output_nodes(build, codes, size, view, keep_bytes=keep_bytes)
    build.nodes[-1].output[0] = OUTPUT

    nodes = [*build.nodes[:split], *graph.node, *build.nodes[split:]]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.initializer.extend(build.constants)
    for values, name in ((graph.input, INPUT), (graph.output, OUTPUT)):
        values.append(helper.make_tensor_value_info(name, TensorProto.UINT8, ("batch", "rows", "width")))
    graph.name = spec.name
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model, full_check=True)
    return model


class _FrameSize:
    """Names of the tensors that hold height and width of the frames, int64[1] each."""

    def __init__(self, build: NodeBuilder, frames: str, multiple_of: int) -> None:
        rows, self.width = (build.add_node("Shape", frames, start=axis, end=axis + 1) for axis in (1, 2))
        two, three = build.add_constant([2]), build.add_constant([3])
        self.height = build.add_node("Div", build.add_node("Mul", rows, two), three)
        self.half_height, self.half_width = (build.add_node("Div", side, two) for side in (self.height, self.width))
        self.missing = [add_distance_to_multiple(build, side, multiple_of) for side in (self.height, self.width)]
        """Rows and columns up to the next multiple."""
        self.half_missing = [build.add_node("Div", missing, two) for missing in self.missing]


def _add_patches(build: NodeBuilder, frames: str, size: _FrameSize, view: Yuv420View, *, keep_bytes: bool) -> None:
    """Add the nodes from the frames to the patches of both with their ring, as codes."""
    kind = np.uint8 if keep_bytes else np.float32
    axis, zero = build.add_constant([1]), build.add_constant([0])
    luma = build.add_node("Slice", frames, zero, size.height, axis)
    chroma = build.add_node("Slice", frames, size.height, build.add_constant([_TO_THE_END]), axis)
    luma = _add_reshape(build, luma, 1, size.height, size.width)
    chroma = _add_reshape(build, chroma, 2, size.half_height, size.half_width)
    patches = [
        _add_patches_of_plane(build, plane, missing=missing, block_px=block, outside=kind(code), ring=view.ring)
        for plane, missing, block, code in (
            (luma, size.missing, view.patch_px, BLACK),
            (chroma, size.half_missing, view.patch_px // 2, NEUTRAL),
        )
    ]
    build.add_node("Concat", *patches, axis=1)


def _add_values(build: NodeBuilder, *, keep_bytes: bool) -> None:
    """Add the node from codes to codes less 128."""
    codes = build.nodes[-1].output[0]
    if keep_bytes:
        zero_point = build.add_constant(np.uint8(NEUTRAL))
        build.add_node("DequantizeLinear", codes, build.add_constant(np.float32(1)), zero_point)
    else:
        build.add_node("Sub", codes, build.add_constant(np.float32(NEUTRAL)))


def _add_patches_of_plane(
    build: NodeBuilder, plane: str, *, missing: list[str], block_px: int, outside: np.uint8 | np.float32, ring: int
) -> str:
    """Add the nodes from a plane, padded by `missing`, to its patches with a ring of patches of the code `outside`."""
    pads = build.add_node("Concat", build.add_constant([0] * 6), *missing, axis=0)
    patches = build.add_node("Pad", plane, pads, mode="edge")
    if block_px > 1:
        patches = build.add_node("SpaceToDepth", patches, blocksize=block_px)
    if ring:
        pads = build.add_constant([0, 0, ring, ring] * 2)
        patches = build.add_node("Pad", patches, pads, build.add_constant(outside))
    return patches


def _add_codes(build: NodeBuilder, values: str, *, keep_bytes: bool) -> str:
    """Add the nodes from the core's output to codes 0..255, clipped and rounded; return the name of the codes."""
    if keep_bytes:
        zero_point = build.add_constant(np.uint8(NEUTRAL))
        return build.add_node("QuantizeLinear", values, build.add_constant(np.float32(1)), zero_point)
    codes = build.add_node("Add", values, build.add_constant(np.float32(NEUTRAL)))
    codes = build.add_node("Clip", codes, build.add_constant(np.float32(0)), build.add_constant(np.float32(255)))
    return build.add_node("Round", codes)


def _add_output_nodes(build: NodeBuilder, codes: str, size: _FrameSize, view: Yuv420View, *, keep_bytes: bool) -> None:
    """Add the nodes from patches of codes to the planes of the restored frames, cropped to their size."""
    luma_channels = view.patch_px**2
    bounds = [build.add_constant([bound]) for bound in (0, luma_channels, luma_channels * 3 // 2)]
    axis, sides, corner = build.add_constant([1]), build.add_constant([2, 3]), build.add_constant([0, 0])
    planes = []
    for start, stop, block, height, width in (
        (bounds[0], bounds[1], view.patch_px, size.height, size.width),
        (bounds[1], bounds[2], view.patch_px // 2, size.half_height, size.half_width),
    ):
        padded = build.add_node("Slice", codes, start, stop, axis)
        padded = build.add_node("DepthToSpace", padded, blocksize=block) if block > 1 else padded
        plane = build.add_node("Slice", padded, corner, build.add_node("Concat", height, width, axis=0), sides)
        rows = build.add_node("Concat", build.add_constant([0, -1]), size.width, axis=0)
        planes.append(build.add_node("Reshape", plane, rows))
    build.add_node("Concat", *planes, axis=1)
    if not keep_bytes:
        build.add_node("Cast", build.nodes[-1].output[0], to=TensorProto.UINT8)


def _add_reshape(build: NodeBuilder, plane: str, channels: int, height: str, width: str) -> str:
    shape = build.add_node("Concat", build.add_constant([0, channels]), height, width, axis=0)
    return build.add_node("Reshape", plane, shape)
