"""The pixel contract as graph nodes: uint8[N, H, W, 3] BGR in, the same out.

Whatever runs the engine sees the same padding, scaling, clipping and rounding, and copies bytes instead of floats.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.spec import METADATA_KEY, EngineSpec

INPUT, OUTPUT = "blurred", "sharp"


def with_pixel_interface(
    core: onnx.ModelProto,
    *,
    pixel_range: tuple[float, float],
    multiple_of: int,
    spec: EngineSpec,
) -> onnx.ModelProto:
    """Wrap a float32[N, 3, H, W] BGR network so that it takes and gives 8-bit frames of any size.

    Frames are padded to the network's multiple by repeating the last row and column, and
    cropped back. They are floats by then, as TensorRT neither pads nor slices bytes. `spec`
    goes into the metadata. What was the network's input keeps its name.
    """
    model = onnx.ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    low, high = pixel_range
    build = _Builder()
    planes = build.node("Transpose", build.node("Cast", INPUT, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    before = build.node("Mul", planes, build.constant(np.float32((high - low) / 255)))
    if low:
        before = build.node("Add", before, build.constant(np.float32(low)))
    if multiple_of > 1:
        size = build.node("Shape", INPUT, start=1, end=3)
        missing = build.node("Mod", build.node("Neg", size), build.constant([multiple_of]))
        pads = build.node("Concat", build.constant([0] * 6), missing, axis=0)
        before = build.node("Pad", before, pads, mode="edge")
    build.nodes[-1].output[0] = graph.input[0].name
    split = len(build.nodes)

    after = graph.output[0].name
    if multiple_of > 1:
        after = build.node("Slice", after, build.constant([0, 0]), size, build.constant([2, 3]))
    if low:
        after = build.node("Sub", after, build.constant(np.float32(low)))
    codes = build.node("Mul", after, build.constant(np.float32(255 / (high - low))))
    codes = build.node("Clip", codes, build.constant(np.float32(0)), build.constant(np.float32(255)))
    frames = build.node("Transpose", build.node("Round", codes), perm=[0, 2, 3, 1])
    build.node("Cast", frames, to=TensorProto.UINT8, name=OUTPUT)

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


class _Builder:
    """Collects nodes and constants under names that no network uses."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, name: str | None = None, **attributes: object) -> str:
        """Add a node with one output; returns the output's name."""
        label = f"pixels.{kind.lower()}{len(self.nodes)}"
        output = name or label
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{label}.node", **attributes))
        return output

    def constant(self, values: list[int] | np.float32) -> str:
        name = f"pixels.constant{len(self.constants)}"
        array = np.asarray(values, np.int64) if isinstance(values, list) else np.asarray(values)
        self.constants.append(numpy_helper.from_array(array, name))
        return name
