"""Nodes that only move or measure values, applied to the bytes of a quantised core instead of its floats.

Without this, ONNX Runtime computes floats for them alone: one more pass over memory for each.
"""

from __future__ import annotations

import onnx
from onnx import helper


def use_bytes(graph: onnx.GraphProto) -> None:
    """Let Shape nodes read bytes, and Slice nodes between tensors of equal scale move bytes."""
    producers = {name: node for node in graph.node for name in node.output}
    for node in list(graph.node):
        if node.op_type == "Shape":
            _measure_bytes(node, producers)
        elif node.op_type == "Slice" and _is_dequantize(producers.get(node.input[0])):
            _slice_bytes(node, producers[node.input[0]], graph)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for node in list(graph.node):
        if _is_dequantize(node) and node.output[0] not in read:
            graph.node.remove(node)


def _is_dequantize(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


def _measure_bytes(shape: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> None:
    """Let a Shape node of one axis read the bytes before its floats, also through a Transpose."""
    attributes = {attribute.name: attribute for attribute in shape.attribute}
    source = producers.get(shape.input[0])
    if {"start", "end"} > attributes.keys() or attributes["end"].i != attributes["start"].i + 1:
        return
    axis = attributes["start"].i
    if source is not None and source.op_type == "Transpose":
        axis = helper.get_node_attr_value(source, "perm")[axis]
        source = producers.get(source.input[0])
    if source is not None and _is_dequantize(source):
        shape.input[0] = source.input[0]
        attributes["start"].i, attributes["end"].i = axis, axis + 1


def _slice_bytes(node: onnx.NodeProto, source: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """Let a Slice node, whose only reader quantises as its source is quantised, move bytes."""
    readers = [reader for reader in graph.node if node.output[0] in reader.input]
    if [reader.op_type for reader in readers] != ["QuantizeLinear"]:
        return
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer}
    if all(
        constants[one] == constants[other] for one, other in zip(source.input[1:], readers[0].input[1:], strict=True)
    ):
        node.input[0], node.output[0] = source.input[0], readers[0].output[0]
        graph.node.remove(readers[0])
