"""DepthToSpace (pixel shuffle) replaced by Reshape and Transpose nodes that move whole rows of a block.

CPUs move runs of values many times faster than single values. `pixel_shuffle` orders the channels by colour, row,
column, so that no two neighbouring channels are neighbouring values of the frame. Here the convolution before it
writes its channels in the order row, column, colour. CPU kernels for 8 bits keep channels innermost (NHWC), so all
channels of one pixel then move together.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from export.graph.attributes import get_attribute
from export.graph.node_builder import NodeBuilder


def replace_depth_to_space(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return a core with the same output bits in which Transpose and Reshape nodes replace DepthToSpace.

    A DepthToSpace node is replaced if it is the only consumer of a convolution whose weights nothing else uses, and
    if its mode is CRD, which is `pixel_shuffle`. Others stay.
    """
    result = onnx.ModelProto()
    result.CopyFrom(core)
    graph = result.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    consumed = [name for node in graph.node for name in node.input]
    for index, node in enumerate(list(graph.node)):
        convolution = producers.get(node.input[0]) if node.op_type == "DepthToSpace" else None
        if convolution is None or not _can_reorder_outputs(convolution, constants, consumed):
            continue
        if get_attribute(node, "mode", b"DCR") != b"CRD":
            continue
        block_px = int(get_attribute(node, "blocksize", 0))
        for name in convolution.input[1:]:
            constants[name].CopyFrom(_order_colour_last(constants[name], block_px))
        build = NodeBuilder(f"shuffle{index}")
        blocks = build.add_node("Transpose", node.input[0], perm=[0, 2, 3, 1])
        colours = constants[convolution.input[1]].dims[0] // block_px**2
        build.add_node("Transpose", build.add_depth_to_space(blocks, block_px, colours), perm=[0, 3, 1, 2])
        build.nodes[-1].output[0] = node.output[0]
        position = list(graph.node).index(node)
        nodes = [*graph.node[:position], *build.nodes, *graph.node[position + 1 :]]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend(build.constants)
    onnx.checker.check_model(result, full_check=True)
    return result


def _order_colour_last(tensor: onnx.TensorProto, block_px: int) -> onnx.TensorProto:
    """Return weights or biases whose output channels, ordered colour, row, column, become row, column, colour."""
    values = numpy_helper.to_array(tensor)
    by_colour = values.reshape(-1, block_px**2, *values.shape[1:])
    reordered = np.ascontiguousarray(by_colour.swapaxes(0, 1)).reshape(values.shape)
    return numpy_helper.from_array(reordered, tensor.name)


def _can_reorder_outputs(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], consumed: list[str]) -> bool:
    """Return whether a node is a convolution whose output channels can be reordered without other nodes noticing."""
    owns_weights = all(name in constants and consumed.count(name) == 1 for name in node.input[1:])
    is_plain = node.op_type == "Conv" and get_attribute(node, "group", 1) == 1
    return is_plain and owns_weights and consumed.count(node.output[0]) == 1
