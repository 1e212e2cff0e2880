"""Exact rewriting of convolutions into fewer and cheaper ones, in any ONNX graph.

Training likes depth that inference need not pay for. Between convolutions without a
non-linearity three things can be put together without changing the result, borders included:

- batch normalisation after a convolution: scale and shift go into its weights;
- a 1x1 convolution after a convolution that feeds nothing else, where the product costs less;
- convolutions of one input whose outputs are only concatenated: one convolution with all their
  channels.

A 1x1 convolution before a larger one stays: its bias reaches the border, where the larger one
sees zeros. Weights that several convolutions share stay shared, unless one of them changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Weights = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Kernel [O, I/groups, K, K] and bias [O]."""


def collapsed(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model that computes the same with fewer multiply-accumulates, or the same number in fewer nodes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph(result.graph)
    while graph.fold_one_normalisation() or graph.merge_one_pair() or graph.merge_one_family():
        graph.index()
    graph.sweep()
    onnx.checker.check_model(result, full_check=True)
    return result


def macs_per_pixel(model: onnx.ModelProto, *, height: int, width: int) -> float:
    """Multiply-accumulates of all convolutions and matrix products per pixel, at this size of the input.

    Found by running the model once, so that any graph can be counted; weights that are used
    several times count each time.
    """
    nodes = [node for node in model.graph.node if node.op_type in {"Conv", "ConvTranspose", "MatMul"}]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    names = dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0]))
    names = {name: None for name in names if name not in {each.name for each in model.graph.input}}
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    frame = np.zeros((1, source.shape[1], height, width), np.float32)
    values = dict(zip(names, session.run(list(names), {source.name: frame}), strict=True)) | {source.name: frame}
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    macs = 0
    for node in nodes:
        taken, made = values[node.input[0]], values[node.output[0]]
        if node.op_type == "MatMul":
            macs += made.size * taken.shape[-1]
        else:  # the kernel is used once for each pixel: that it makes, or transposed, that it takes
            macs += int(np.prod(shapes[node.input[1]])) * (made if node.op_type == "Conv" else taken)[0, 0].size
    return macs / (frame.size / 3)  # a patch of pixels may lie in the channels of one place


class _Graph:
    """A graph with its nodes by what they make and who takes it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.proto = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.outputs = {output.name for output in graph.output}
        self.made = 0
        self.index()

    def index(self) -> None:
        """Note who makes and who takes each tensor; to be renewed after a change."""
        self.takers = Counter(name for node in self.proto.node for name in node.input)
        self.makers = {name: node for node in self.proto.node for name in node.output}

    def fold_one_normalisation(self) -> bool:
        """BatchNormalization after a convolution: y = scale * (x - mean) / sqrt(var + eps) + shift."""
        for node in self.proto.node:
            before = self.only_source(node, "Conv") if node.op_type == "BatchNormalization" else None
            if before is None or not all(name in self.constants for name in node.input[1:5]):
                continue
            scale, shift, mean, variance = (self.values(name) for name in node.input[1:5])
            factor = scale / np.sqrt(variance + self.attribute(node, "epsilon", 1e-5))
            kernel, bias = self.weights(before)
            self.replace(before, node, (kernel * factor[:, None, None, None], (bias - mean) * factor + shift))
            return True
        return False

    def merge_one_pair(self) -> bool:
        """A convolution and the 1x1 convolution that alone takes its output, where one costs no more than both."""
        for node in self.proto.node:
            before = self.only_source(node, "Conv") if self.is_pointwise(node) else None
            if before is None or self.attribute(before, "group", 1) != 1:
                continue
            kernel, bias = self.weights(before)
            pointwise, pointwise_bias = self.weights(node)
            pointwise = pointwise[:, :, 0, 0]
            if pointwise.shape[0] * kernel[0].size > kernel.size + pointwise.size:
                continue
            merged = np.tensordot(pointwise, kernel, axes=1)
            self.replace(before, node, (merged, pointwise @ bias + pointwise_bias))
            return True
        return False

    def merge_one_family(self) -> bool:
        """Convolutions alike in all but their weights, on one input, that stand beside each other in a Concat."""
        for node in self.proto.node:
            if node.op_type != "Concat" or self.attribute(node, "axis", 0) != 1:
                continue
            sources = [self.source(name, "Conv") for name in node.input]
            for start, stop in _runs(sources, self.are_siblings):
                family = [source for source in sources[start:stop] if source is not None]
                kernels, biases = zip(*(self.weights(member) for member in family), strict=True)
                kept = family[0]
                self.set_weights(kept, (np.concatenate(kernels), np.concatenate(biases)))
                for member in family[1:]:
                    self.proto.node.remove(member)
                names = [*node.input[:start], kept.output[0], *node.input[stop:]]
                if len(names) == 1:
                    kept.output[0] = node.output[0]
                    self.proto.node.remove(node)
                else:
                    node.input[:] = names
                return True
        return False

    def sweep(self) -> None:
        """Drop constants that nothing uses any more, and shapes that may have become wrong."""
        used = {name for node in self.proto.node for name in node.input}
        kept = [tensor for tensor in self.constants.values() if tensor.name in used]
        del self.proto.initializer[:], self.proto.value_info[:]
        self.proto.initializer.extend(kept)

    def are_siblings(self, one: onnx.NodeProto | None, other: onnx.NodeProto | None) -> bool:
        if one is None or other is None or self.attribute(one, "group", 1) != 1:
            return False
        kernels = [self.constants[node.input[1]].dims[1:] for node in (one, other)]
        same = one.input[0] == other.input[0] and kernels[0] == kernels[1]
        return same and _settings(one) == _settings(other)

    def is_pointwise(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Conv" or node.input[1] not in self.constants or self.attribute(node, "group", 1) != 1:
            return False
        settings = _settings(node)
        plain = all(set(settings.get(name, [1])) == {1} for name in ("strides", "dilations"))
        return plain and set(settings.get("pads", [0])) == {0} and set(self.constants[node.input[1]].dims[2:]) == {1}

    def source(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node of this kind, with constant weights, that makes a tensor which one other node takes."""
        maker = self.makers.get(name)
        if maker is None or maker.op_type != kind or self.takers[name] != 1 or name in self.outputs:
            return None
        return maker if all(each in self.constants for each in maker.input[1:]) else None

    def only_source(self, node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
        return self.source(node.input[0], kind)

    def replace(self, kept: onnx.NodeProto, dropped: onnx.NodeProto, weights: Weights) -> None:
        """Give a convolution new weights and let it make what the node after it made."""
        self.set_weights(kept, weights)
        kept.output[0] = dropped.output[0]
        self.proto.node.remove(dropped)

    def set_weights(self, node: onnx.NodeProto, weights: Weights) -> None:
        names = []
        for kind, values in zip(("weight", "bias"), weights, strict=True):
            name = f"collapsed{self.made}.{kind}"
            self.constants[name] = numpy_helper.from_array(values.astype(np.float32), name)
            names.append(name)
        self.made += 1
        node.input[1:] = names

    def weights(self, node: onnx.NodeProto) -> Weights:
        kernel = self.values(node.input[1])
        bias = self.values(node.input[2]) if len(node.input) > 2 else np.zeros(len(kernel))
        return kernel, bias

    def values(self, name: str) -> NDArray[np.float64]:
        return numpy_helper.to_array(self.constants[name]).astype(np.float64)

    @staticmethod
    def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
        return _settings(node).get(name, default)


def _settings(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _runs(
    items: list[onnx.NodeProto | None], alike: Callable[[onnx.NodeProto | None, onnx.NodeProto | None], bool]
) -> Iterator[tuple[int, int]]:
    """Stretches of at least two neighbours that are alike."""
    start = 0
    for stop in range(1, len(items) + 1):
        if stop == len(items) or not alike(items[start], items[stop]):
            if stop - start > 1:
                yield start, stop
            start = stop
