"""Nodes of a network that half precision computes wrongly, whatever the image: sums of many values, and deviations."""

from __future__ import annotations

import onnx
from onnx import numpy_helper

_REDUCTIONS = {"ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"}
_SUMS = {"CumSum", "GlobalAveragePool"}
_ROOTS = {"Sqrt", "ReduceL2"}
_INSIDE = _REDUCTIONS | {"Add", "Clip", "Max", "Mul", "Pow"}
"""Operators between values and the root of their mean square."""
_BEHIND = {"Clip", "Div", "Expand", "Max", "Reciprocal"}
"""Operators between the root of a mean square and the quotient."""
_CHANNELS = [1]


def list_float_nodes(core: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes that must compute in float32.

    - Sums over pixels: they grow with the frame, so that no calibration frame can show that they fit.
    - The mean square of normalisations, its root, and the quotient by it or its reciprocal: squares overflow above
      256, and where the image is flat they vanish beside the epsilon of 1e-6, which half precision can hardly hold; the
      quotient is then infinite or wrong, which shows as a grid in the image.
    """
    constants = {tensor.name: tensor for tensor in core.graph.initializer}
    producers = {name: node for node in core.graph.node for name in node.output}
    names = {node.name for node in core.graph.node if _sums_pixels(node, constants)}
    for node in core.graph.node:
        if node.op_type in _ROOTS:
            names |= _list_mean_square(node, producers)
            names |= _list_divisor(node, core.graph)
    return names


def _sums_pixels(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Return whether a node adds values of other axes than the channels."""
    if node.op_type in _SUMS:
        return True
    if node.op_type not in _REDUCTIONS:
        return False
    axes = constants.get(node.input[1]) if len(node.input) > 1 else None
    return axes is None or numpy_helper.to_array(axes).tolist() != _CHANNELS


def _list_mean_square(root: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> set[str]:
    """Return the names of a root and of the nodes before it, up to the square that its values come from."""
    names, pending = set(), [root]
    while pending:
        node = pending.pop()
        names.add(node.name)
        is_square = node.op_type in {"Pow", "ReduceL2", "ReduceSumSquare"} or (
            node.op_type == "Mul" and len(set(node.input)) == 1
        )
        if not is_square:
            sources = (producers.get(name) for name in node.input)
            pending += [source for source in sources if source is not None and source.op_type in _INSIDE]
    return names


def _list_divisor(root: onnx.NodeProto, graph: onnx.GraphProto) -> set[str]:
    """Return the names of the nodes behind a root, up to its reciprocal or the quotient."""
    names, tensors = set(), {root.output[0]}
    for node in graph.node:
        if node.op_type in _BEHIND and not tensors.isdisjoint(node.input):
            names.add(node.name)
            tensors |= set() if node.op_type in {"Div", "Reciprocal"} else {node.output[0]}
    return names
