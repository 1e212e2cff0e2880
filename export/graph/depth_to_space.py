"""Pixel-shuffles as moves of whole runs, which CPUs do many times faster than of single values.

`pixel_shuffle` takes channels by colour, row, column: no two neighbours stay neighbours. With the
channels of the convolution before it in the order row, column, colour, and channels innermost, as
CPU kernels keep them in 8 bits anyway, the channels of a pixel move together.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.graph.node_builder import Nodes


def in_runs(core: onnx.ModelProto) -> onnx.ModelProto:
    """A core that computes the same, with each DepthToSpace that alone follows a convolution made of transpositions."""
    result = onnx.ModelProto()
    result.CopyFrom(core)
    graph = result.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    takers = [name for node in graph.node for name in node.input]
    for index, node in enumerate(list(graph.node)):
        before = makers.get(node.input[0]) if node.op_type == "DepthToSpace" else None
        if before is None or not _reorders(before, constants, takers) or _setting(node, "mode", b"DCR") != b"CRD":
            continue
        side = int(_setting(node, "blocksize", 0))
        for name in before.input[1:]:
            values = numpy_helper.to_array(constants[name])
            by_colour = values.reshape(-1, side**2, *values.shape[1:])
            ordered = np.ascontiguousarray(by_colour.swapaxes(0, 1)).reshape(values.shape)
            constants[name].CopyFrom(numpy_helper.from_array(ordered, name))
        build = Nodes(f"shuffle{index}")
        squares = build.node("Transpose", node.input[0], perm=[0, 2, 3, 1])
        rows = build.rows(squares, side, constants[before.input[1]].dims[0] // side**2)
        build.node("Transpose", rows, perm=[0, 3, 1, 2])
        build.nodes[-1].output[0] = node.output[0]
        at = list(graph.node).index(node)
        nodes = [*graph.node[:at], *build.nodes, *graph.node[at + 1 :]]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(build.constants)
    onnx.checker.check_model(result, full_check=True)
    return result


def _reorders(convolution: onnx.NodeProto, constants: dict[str, onnx.TensorProto], takers: list[str]) -> bool:
    """Whether the channels that a node makes can be reordered in its weights, and nobody else would notice."""
    weights = convolution.input[1:]
    own = all(name in constants and takers.count(name) == 1 for name in weights)
    plain = convolution.op_type == "Conv" and _setting(convolution, "group", 1) == 1
    return plain and own and takers.count(convolution.output[0]) == 1


def _setting(node: onnx.NodeProto, name: str, default: bytes | int) -> bytes | int:
    found: dict[str, bytes | int] = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    return found.get(name, default)
