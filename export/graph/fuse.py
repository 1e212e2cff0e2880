"""Fusion of convolutions into fewer and cheaper ones, exact and for any ONNX graph.

Networks are trained with more layers than inference needs. Where no non-linearity lies between them, these patterns
can be merged without changing the result, image borders included:

- batch normalisation after a convolution: its scale and shift go into the weights; so do other scales and shifts with
  one constant for each channel, after a convolution or before a 1x1 convolution;
- a 1x1 convolution that is the only consumer of another convolution, if the product costs less;
- convolutions of one input whose outputs are only concatenated: they become one convolution with all their channels.

A 1x1 convolution before a larger one stays: the larger one pads its input with zeros, where the 1x1 convolution would
have written its bias. Weights that several convolutions share stay shared, unless one of the convolutions changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from export.graph.attributes import get_attribute, get_attributes

Weights = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Kernel float64[O, I/groups, K, K] and bias float64[O]."""


def fuse_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes the same with fewer multiply-accumulates, or the same number in fewer nodes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result.graph)
    while graph.fuse_one_scale() or graph.fuse_one_pointwise() or graph.fuse_one_concatenation():
        graph.build_index()
    graph.remove_unused()
    onnx.checker.check_model(result, full_check=True)
    return result


def fuse_pointwise_ends(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose 1x1 convolutions at both ends are fused with their neighbours, whatever that costs.

    A first convolution of 1x1 pixels without bias goes into the only convolution that reads it, which pads with the
    same zeros then; a last one, before an Add at most, goes into the convolution before it.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result.graph)
    graph.fuse_first_pointwise()
    graph.build_index()
    graph.fuse_last_pointwise()
    graph.remove_unused()
    return result


class _Graph:
    """A graph with an index of the producer and the consumers of every tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.proto = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {output.name for output in graph.output}
        self.rewritten = 0
        """Number of convolutions that got new weights; makes the names of those weights unique."""
        self.build_index()

    def build_index(self) -> None:
        """Find the producer and the consumers of every tensor; call it again after a change."""
        self.consumers: defaultdict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.proto.node:
            for name in node.input:
                self.consumers[name].append(node)
        self.producers = {name: node for node in self.proto.node for name in node.output}

    def fuse_one_scale(self) -> bool:
        """Fuse a scale or a shift of each channel into the convolution before it, or the 1x1 convolution behind it."""
        for node in self.proto.node:
            affine = self.read_affine(node)
            if affine is None:
                continue
            source, scale, shift = affine
            convolution = self.find_private_producer(source)
            if convolution is not None:
                kernel, bias = self.read_weights(convolution)
                if not {scale.size, shift.size} <= {1, len(kernel)}:  # one channel becomes several
                    continue
                scale, shift = (np.broadcast_to(values, len(kernel)) for values in (scale, shift))
                self.replace(convolution, node, (kernel * scale[:, None, None, None], bias * scale + shift))
                return True
            consumers = self.consumers[node.output[0]]
            if len(consumers) == 1 and self.is_pointwise(consumers[0]) and node.output[0] not in self.outputs:
                kernel, bias = self.read_weights(consumers[0])
                if not {scale.size, shift.size} <= {1, kernel.shape[1]} or consumers[0].input[0] != node.output[0]:
                    continue
                scale, shift = (np.broadcast_to(values, kernel.shape[1]) for values in (scale, shift))
                bias = bias + kernel[:, :, 0, 0] @ shift
                self.write_weights(consumers[0], (kernel * scale[None, :, None, None], bias))
                consumers[0].input[0] = source
                self.proto.node.remove(node)
                return True
        return False

    def read_affine(self, node: onnx.NodeProto) -> tuple[str, NDArray[np.float64], NDArray[np.float64]] | None:
        """Return the input of a node that computes scale * x + shift for each channel, and both as float64[C] or [1].

        None for any other node.
        """
        if node.op_type == "BatchNormalization" and all(name in self.constants for name in node.input[1:5]):
            scale, shift, mean, variance = (self.read_values(name) for name in node.input[1:5])
            factor = scale / np.sqrt(variance + get_attribute(node, "epsilon", 1e-5))
            return node.input[0], factor, shift - mean * factor
        constants = [name for name in node.input if name in self.constants]
        if node.op_type not in {"Mul", "Add"} or len(constants) != 1:
            return None
        values = self.read_values(constants[0])
        if values.size != 1 and (values.ndim not in {3, 4} or values.size != values.shape[-3]):
            return None
        source = next(name for name in node.input if name not in self.constants)
        values = values.reshape(-1)
        is_scale = node.op_type == "Mul"
        return source, values if is_scale else np.ones(1), np.zeros(1) if is_scale else values

    def fuse_one_pointwise(self) -> bool:
        """Fuse a 1x1 convolution into the convolution before it, if the result costs no more than both."""
        return any(self.is_pointwise(node) and self.fuse_into_producer(node, always=False) for node in self.proto.node)

    def fuse_into_producer(self, node: onnx.NodeProto, *, always: bool) -> bool:
        """Fuse a 1x1 convolution into the convolution before it, if there is one; return whether that was done.

        `always`: also if the result costs more than both.
        """
        convolution = self.find_private_producer(node.input[0])
        if convolution is None or get_attribute(convolution, "group", 1) != 1:
            return False
        kernel, bias = self.read_weights(convolution)
        pointwise, pointwise_bias = self.read_weights(node)
        pointwise = pointwise[:, :, 0, 0]
        if pointwise.shape[0] * kernel[0].size > kernel.size + pointwise.size and not always:
            return False
        fused = np.tensordot(pointwise, kernel, axes=1)
        self.replace(convolution, node, (fused, pointwise @ bias + pointwise_bias))
        return True

    def fuse_first_pointwise(self) -> None:
        """Fuse a 1x1 convolution without bias that reads the input into the only convolution behind it."""
        source = self.proto.input[0].name
        for node in self.proto.node:
            producer = self.find_private_producer(node.input[0]) if node.op_type == "Conv" else None
            if producer is None or producer.input[0] != source or not self.is_pointwise(producer):
                continue
            pointwise, pointwise_bias = self.read_weights(producer)
            is_plain = get_attribute(node, "group", 1) == 1 and all(name in self.constants for name in node.input[1:])
            if pointwise_bias.any() or not is_plain:
                continue
            kernel, bias = self.read_weights(node)
            self.write_weights(node, (np.einsum("ocyx,ci->oiyx", kernel, pointwise[:, :, 0, 0]), bias))
            node.input[0] = source
            self.proto.node.remove(producer)
            return

    def fuse_last_pointwise(self) -> None:
        """Fuse the 1x1 convolution that gives the output, or that is added to something for it, into the one before."""
        last = self.producers[self.proto.output[0].name]
        for name in [last.output[0], *(last.input if last.op_type == "Add" else [])]:
            node = self.producers.get(name)
            if node is not None and self.is_pointwise(node):
                self.fuse_into_producer(node, always=True)
                return

    def fuse_one_concatenation(self) -> bool:
        """Fuse neighbouring inputs of a Concat that are convolutions of one tensor with equal settings."""
        for node in self.proto.node:
            if node.op_type != "Concat" or get_attribute(node, "axis", 0) != 1:
                continue
            sources = [self.find_private_producer(name) for name in node.input]
            for start, stop in _find_runs(sources, self.are_siblings):
                siblings = [source for source in sources[start:stop] if source is not None]
                kernels, biases = zip(*(self.read_weights(sibling) for sibling in siblings), strict=True)
                first = siblings[0]
                self.write_weights(first, (np.concatenate(kernels), np.concatenate(biases)))
                for sibling in siblings[1:]:
                    self.proto.node.remove(sibling)
                names = [*node.input[:start], first.output[0], *node.input[stop:]]
                if len(names) == 1:
                    first.output[0] = node.output[0]
                    self.proto.node.remove(node)
                else:
                    node.input[:] = names
                return True
        return False

    def remove_unused(self) -> None:
        """Remove constants that no node uses any more, and inferred shapes, which may no longer be right."""
        used = {name for node in self.proto.node for name in node.input}
        constants = [tensor for tensor in self.constants.values() if tensor.name in used]
        del self.proto.initializer[:], self.proto.value_info[:]
        self.proto.initializer.extend(constants)

    def are_siblings(self, first: onnx.NodeProto | None, second: onnx.NodeProto | None) -> bool:
        """Return whether two convolutions read the same tensor and differ only in weights and number of outputs."""
        if first is None or second is None or get_attribute(first, "group", 1) != 1:
            return False
        kernel_dims = [self.constants[node.input[1]].dims[1:] for node in (first, second)]
        is_same_input = first.input[0] == second.input[0] and kernel_dims[0] == kernel_dims[1]
        return is_same_input and get_attributes(first) == get_attributes(second)

    def is_pointwise(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is a 1x1 convolution with constant weights, without stride, padding and groups."""
        if node.op_type != "Conv" or node.input[1] not in self.constants or get_attribute(node, "group", 1) != 1:
            return False
        is_plain = all(set(get_attribute(node, name, [1])) == {1} for name in ("strides", "dilations"))
        return (
            is_plain
            and set(get_attribute(node, "pads", [0])) == {0}
            and set(self.constants[node.input[1]].dims[2:]) == {1}
        )

    def find_private_producer(self, name: str) -> onnx.NodeProto | None:
        """Return the convolution that produces a tensor, if its weights are constant and it has only one consumer."""
        node = self.producers.get(name)
        if node is None or node.op_type != "Conv" or len(self.consumers[name]) != 1 or name in self.outputs:
            return None
        return node if all(weight in self.constants for weight in node.input[1:]) else None

    def replace(self, convolution: onnx.NodeProto, consumer: onnx.NodeProto, weights: Weights) -> None:
        """Give a convolution new weights, let it produce the output of its consumer, and remove the consumer."""
        self.write_weights(convolution, weights)
        convolution.output[0] = consumer.output[0]
        self.proto.node.remove(consumer)

    def write_weights(self, node: onnx.NodeProto, weights: Weights) -> None:
        """Give a convolution a kernel and a bias of its own, as float32."""
        while f"collapsed{self.rewritten}.weight" in self.constants:  # of an earlier call
            self.rewritten += 1
        names = []
        for kind, values in zip(("weight", "bias"), weights, strict=True):
            name = f"collapsed{self.rewritten}.{kind}"
            self.constants[name] = numpy_helper.from_array(values.astype(np.float32), name)
            names.append(name)
        self.rewritten += 1
        node.input[1:] = names

    def read_weights(self, node: onnx.NodeProto) -> Weights:
        """Return kernel and bias of a convolution; a missing bias is zeros."""
        kernel = self.read_values(node.input[1])
        bias = self.read_values(node.input[2]) if len(node.input) > 2 else np.zeros(len(kernel))
        return kernel, bias

    def read_values(self, name: str) -> NDArray[np.float64]:
        return numpy_helper.to_array(self.constants[name]).astype(np.float64)


def _find_runs(
    items: list[onnx.NodeProto | None], are_alike: Callable[[onnx.NodeProto | None, onnx.NodeProto | None], bool]
) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each run of at least two neighbours that are alike."""
    start = 0
    for stop in range(1, len(items) + 1):
        if stop == len(items) or not are_alike(items[start], items[stop]):
            if stop - start > 1:
                yield start, stop
            start = stop
