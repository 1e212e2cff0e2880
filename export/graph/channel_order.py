"""RGB networks turned into BGR networks by reordering weights, so that engines swap no channels while they run.

The order of the channels is followed through the graph from the input. A convolution absorbs it in the input channels
of its weights, a constant with one value per channel is reordered, and nodes that compute every channel in the same
way hand it on. At the other end the last convolution writes its output channels in BGR order.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.graph.attributes import get_attribute

Order = NDArray[np.intp]
"""Indices of the original channels, in the order in which a tensor holds them."""

_CHANNELWISE = {"Add", "Cast", "Clip", "Div", "Identity", "Mul", "Relu", "Sigmoid", "Sub", "Tanh"}
"""Operators that compute every channel by itself, in the same way."""
_SPATIAL = {"AveragePool", "MaxPool", "Resize"}
"""Operators like those of `_CHANNELWISE`, but only their first input has channels."""


class _CannotFoldError(Exception):
    """The reordered channels reach a node that cannot absorb them or hand them on."""


def to_bgr_order(core: onnx.ModelProto, *, patch_px: int = 1) -> onnx.ModelProto:
    """Return a core for inputs and outputs in BGR order, from one in RGB order, or the other way round.

    `core`: float32[N, 3 P^2, H, W] -> the same, where P is `patch_px` and the colour is the last index of the channels
    of a patch. If the order cannot be moved into the weights, a Gather node on either side swaps the channels.
    """
    result = onnx.ModelProto()
    result.CopyFrom(core)
    swap: Order = np.arange(3 * patch_px**2).reshape(-1, 3)[:, ::-1].ravel()
    try:
        _ChannelOrder(result, swap).fold()
    except _CannotFoldError:
        result.CopyFrom(core)
        _add_swap_nodes(result.graph, swap)
    onnx.checker.check_model(result, full_check=True)
    return result


class _ChannelOrder:
    """The channel order of every tensor of a graph, while the graph is rewritten."""

    def __init__(self, model: onnx.ModelProto, swap: Order) -> None:
        self.graph, self.swap = model.graph, swap
        typed = onnx.shape_inference.infer_shapes(model).graph
        shapes = {v.name: v.type.tensor_type.shape.dim for v in (*typed.value_info, *typed.input, *typed.output)}
        self.channel_counts = {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 4}
        self.constants = {tensor.name: tensor for tensor in self.graph.initializer}
        self.producers = {name: node for node in self.graph.node for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in dict.fromkeys(node.input):
                if node.op_type != "Shape":  # a Shape node reads no channel values
                    self.consumers.setdefault(name, []).append(node)
        self.orders: dict[str, Order] = {self.graph.input[0].name: swap}

    def fold(self) -> None:
        """Move the swap into the weights; raise _CannotFoldError if a node is in the way."""
        for node in list(self.graph.node):
            if any(name in self.orders for name in node.input):
                self._reorder_inputs(node)
        self._reorder_producer(self.graph.output[0].name, self.swap)
        used = {name for node in self.graph.node for name in node.input}
        del self.graph.initializer[:]
        self.graph.initializer.extend(tensor for name, tensor in self.constants.items() if name in used)

    def _reorder_inputs(self, node: onnx.NodeProto) -> None:
        """Adapt a node to inputs with reordered channels, and note the order of its output."""
        order = self.orders.get(node.input[0])
        if node.op_type == "Shape":
            return
        if node.op_type == "Conv" and order is not None and self._is_plain_convolution(node):
            self._set_constant(node, 1, self._read_values(node.input[1])[:, order])
        elif node.op_type == "Concat" and helper.get_node_attr_value(node, "axis") == 1:
            self.orders[node.output[0]] = self._concatenate_orders(node)
        elif node.op_type in _SPATIAL and order is not None:
            self.orders[node.output[0]] = order
        elif node.op_type in _CHANNELWISE:
            order = next(self.orders[name] for name in node.input if name in self.orders)
            for index, name in enumerate(node.input):
                if name in self.constants:
                    self._set_constant(node, index, _reorder(self._read_values(name), order))
                else:
                    self._reorder_producer(name, order)
            self.orders[node.output[0]] = order
        else:
            raise _CannotFoldError

    def _concatenate_orders(self, node: onnx.NodeProto) -> Order:
        parts, start = [], 0
        for name in node.input:
            count = self.channel_counts.get(name, 0)
            if not count:
                raise _CannotFoldError
            parts.append(start + self.orders.get(name, np.arange(count)))
            start += count
        return np.concatenate(parts)

    def _reorder_producer(self, name: str, order: Order) -> None:
        """Make the convolution from which a tensor comes write the tensor in `order`, if it does not do so yet."""
        if name in self.orders:
            if not np.array_equal(self.orders[name], order):
                raise _CannotFoldError
            return
        node = self.producers.get(name)
        other_consumers = len(self.consumers.get(name, [])) - (name != self.graph.output[0].name)
        if node is None or other_consumers > 0:
            raise _CannotFoldError
        if node.op_type == "Conv" and self._is_plain_convolution(node):
            self._reorder_output_channels(node, order)
        elif node.op_type in _SPATIAL:
            self._reorder_producer(node.input[0], order)
        elif node.op_type in _CHANNELWISE:
            for index, source in enumerate(node.input):
                if source in self.constants:
                    self._set_constant(node, index, _reorder(self._read_values(source), order))
                else:
                    self._reorder_producer(source, order)
        else:
            raise _CannotFoldError
        self.orders[name] = order

    def _reorder_output_channels(self, convolution: onnx.NodeProto, order: Order) -> None:
        for index, name in enumerate(convolution.input[1:], start=1):
            values = self._read_values(name)
            if len(values) != len(order):  # for example a mask of one channel
                raise _CannotFoldError
            self._set_constant(convolution, index, values[order])

    def _is_plain_convolution(self, node: onnx.NodeProto) -> bool:
        return get_attribute(node, "group", 1) == 1 and all(name in self.constants for name in node.input[1:])

    def _read_values(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self.constants[name])

    def _set_constant(self, node: onnx.NodeProto, index: int, values: NDArray[np.float32]) -> None:
        """Give a node a constant of its own, because other nodes may share the former one."""
        name = f"{node.input[index]}.bgr{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        node.input[index] = name


def _reorder(values: NDArray[np.float32], order: Order) -> NDArray[np.float32]:
    """Return a constant with the channels, its third axis from the end, in `order`; raise _CannotFoldError."""
    if values.size == 1:
        return values
    if values.ndim < 3 or values.shape[-3] not in {1, len(order)}:
        raise _CannotFoldError
    return values if values.shape[-3] == 1 else np.take(values, order, axis=-3)


def _add_swap_nodes(graph: onnx.GraphProto, swap: Order) -> None:
    """Swap the channels with a Gather after the input and another one before the output."""
    core_input, core_output = graph.input[0].name, graph.output[0].name
    prefix = "bgr" if all(tensor.name != "bgr.order" for tensor in graph.initializer) else "rgb"
    swapped, order = {core_input: f"{prefix}.input", core_output: f"{prefix}.output"}, f"{prefix}.order"
    for node in graph.node:
        node.input[:] = [swapped.get(name, name) for name in node.input]
        node.output[:] = [swapped.get(name, name) for name in node.output]
    graph.initializer.append(numpy_helper.from_array(swap.astype(np.int64), order))
    graph.node.insert(0, helper.make_node("Gather", [core_input, order], [swapped[core_input]], axis=1))
    graph.node.append(helper.make_node("Gather", [swapped[core_output], order], [core_output], axis=1))
