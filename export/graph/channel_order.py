"""RGB networks made into BGR ones by reordering weights, so that no engine swaps colours while it runs.

The swap moves from the picture into whatever meets it first: a convolution's input channels, a
constant that has one value a channel. At the other end the last convolution makes its channels in
BGR order. Nodes that treat all channels alike pass the swap on.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Order = NDArray[np.intp]
"""Which of its former channels each channel of a tensor holds."""

_SWAP: Order = np.array([2, 1, 0])
_ALIKE = {"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Relu", "Sigmoid", "Sub", "Tanh"}
"""Operators that compute each channel by itself, in the same way."""
_SPATIAL = {"AveragePool", "MaxPool", "Resize"}
"""As `_ALIKE`, but only their first input has channels."""


class _CannotFoldError(Exception):
    """The swap meets a node that it cannot pass."""


def in_bgr(core: onnx.ModelProto) -> onnx.ModelProto:
    """The RGB core float32[N, 3, H, W] -> the same, for planes in BGR order.

    Where the swap cannot be moved into weights, a Gather on either side does it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(core)
    try:
        _Swap(result).fold()
    except _CannotFoldError:
        result.CopyFrom(core)
        _swap_with_nodes(result.graph)
    onnx.checker.check_model(result, full_check=True)
    return result


class _Swap:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        typed = onnx.shape_inference.infer_shapes(model).graph
        shapes = {v.name: v.type.tensor_type.shape.dim for v in (*typed.value_info, *typed.input, *typed.output)}
        self.channels = {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 4}
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.takers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in dict.fromkeys(node.input):
                if node.op_type != "Shape":  # which sees no channel's values
                    self.takers.setdefault(name, []).append(node)
        self.orders: dict[str, Order] = {self.graph.input[0].name: _SWAP}

    def fold(self) -> None:
        """Follow the swap from the input to the output."""
        for node in list(self.graph.node):
            if any(name in self.orders for name in node.input):
                self._pass(node)
        self._reorder_maker(self.graph.output[0].name, _SWAP)
        used = {name for node in self.graph.node for name in node.input}
        del self.graph.initializer[:]
        self.graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)

    def _pass(self, node: onnx.NodeProto) -> None:
        """Let a node take reordered channels."""
        order = self.orders.get(node.input[0])
        if node.op_type == "Shape":
            return
        if node.op_type == "Conv" and order is not None and self._is_plain(node):
            self._set(node, 1, self._values(node.input[1])[:, order])
        elif node.op_type == "Concat" and helper.get_node_attr_value(node, "axis") == 1:
            self.orders[node.output[0]] = self._joined(node)
        elif node.op_type in _SPATIAL and order is not None:
            self.orders[node.output[0]] = order
        elif node.op_type in _ALIKE:
            order = next(self.orders[name] for name in node.input if name in self.orders)
            for index, name in enumerate(node.input):
                if name in self.constants:
                    self._set(node, index, _reordered(self._values(name), order))
                else:
                    self._reorder_maker(name, order)
            self.orders[node.output[0]] = order
        else:
            raise _CannotFoldError

    def _joined(self, node: onnx.NodeProto) -> Order:
        parts, start = [], 0
        for name in node.input:
            count = self.channels.get(name, 0)
            if not count:
                raise _CannotFoldError
            parts.append(start + self.orders.get(name, np.arange(count)))
            start += count
        return np.concatenate(parts)

    def _reorder_maker(self, name: str, order: Order) -> None:
        """Have a tensor made in this order, by the convolution that it comes from, if it is not so yet."""
        if name in self.orders:
            if not np.array_equal(self.orders[name], order):
                raise _CannotFoldError
            return
        node = self.makers.get(name)
        others = len(self.takers.get(name, [])) - (name != self.graph.output[0].name)
        if node is None or others > 0:
            raise _CannotFoldError
        if node.op_type == "Conv" and self._is_plain(node):
            self._reorder_outputs(node, order)
        elif node.op_type in _SPATIAL:
            self._reorder_maker(node.input[0], order)
        elif node.op_type in _ALIKE:
            for index, source in enumerate(node.input):
                if source in self.constants:
                    self._set(node, index, _reordered(self._values(source), order))
                else:
                    self._reorder_maker(source, order)
        else:
            raise _CannotFoldError
        self.orders[name] = order

    def _reorder_outputs(self, convolution: onnx.NodeProto, order: Order) -> None:
        for index, weights in enumerate(convolution.input[1:], start=1):
            values = self._values(weights)
            if len(values) != len(order):  # such as a mask of one channel
                raise _CannotFoldError
            self._set(convolution, index, values[order])

    def _is_plain(self, node: onnx.NodeProto) -> bool:
        groups = [helper.get_attribute_value(each) for each in node.attribute if each.name == "group"]
        return groups in ([], [1]) and all(name in self.constants for name in node.input[1:])

    def _values(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self.constants[name])

    def _set(self, node: onnx.NodeProto, index: int, values: NDArray[np.float32]) -> None:
        """Give a node a constant of its own: others may share the former one."""
        name = f"{node.input[index]}.bgr{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        node.input[index] = name


def _reordered(values: NDArray[np.float32], order: Order) -> NDArray[np.float32]:
    """A constant that meets channels on its third axis from the end, as broadcasting has it."""
    if values.size == 1:
        return values
    if values.ndim < 3 or values.shape[-3] not in {1, len(order)}:
        raise _CannotFoldError
    return values if values.shape[-3] == 1 else np.take(values, order, axis=-3)


def _swap_with_nodes(graph: onnx.GraphProto) -> None:
    before, after = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        node.input[:] = ["bgr.planes" if name == before else name for name in node.input]
        node.input[:] = ["bgr.swapped" if name == after else name for name in node.input]
        node.output[:] = ["bgr.swapped" if name == after else name for name in node.output]
    graph.initializer.append(numpy_helper.from_array(_SWAP.astype(np.int64), "bgr.order"))
    graph.node.insert(0, helper.make_node("Gather", [before, "bgr.order"], ["bgr.planes"], axis=1))
    graph.node.append(helper.make_node("Gather", ["bgr.swapped", "bgr.order"], [after], axis=1))
