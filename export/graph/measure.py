"""Measures of many tensors of a network in one run, none of which is kept: extremes and shapes.

A session whose outputs are the tensors themselves needs the memory of all of them at once, gigabytes for large
networks. Here a node behind each tensor reduces it, and runs before the nodes that come later, so that the tensor's
memory is free again as soon as its consumers have run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

Nchw = NDArray[np.float32]
"""Input of a network: float32[N, C, H, W] in its own channel order and pixel range."""
Shape = tuple[int, ...]


def list_float_tensors(model: onnx.ModelProto) -> list[str]:
    """Return the names of all float32 tensors, constants left out."""
    typed = onnx.shape_inference.infer_shapes(model).graph
    constants = {tensor.name for tensor in typed.initializer}  # before IR version 4 they are inputs too
    values = (*typed.input, *typed.value_info, *typed.output)
    names = dict.fromkeys(value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT)
    return [name for name in names if name not in constants]


def measure_extremes(model: onnx.ModelProto, inputs: Iterable[Nchw]) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest value of every float32 tensor, constants left out, over all inputs."""
    extremes: dict[str, tuple[float, float]] = {}
    session = _create_session(model, list_float_tensors(model), ("ReduceMin", "ReduceMax"))
    for nchw in inputs:
        for name, (low, high) in _run(session, nchw).items():
            lowest, highest = extremes.get(name, (np.inf, -np.inf))
            extremes[name] = float(np.fmin(lowest, low.item())), float(np.fmax(highest, high.item()))
    return extremes


def measure_shapes(model: onnx.ModelProto, names: Sequence[str], nchw: Nchw) -> dict[str, Shape]:
    """Return the shape of each named tensor for this input."""
    measured = _run(_create_session(model, names, ("Shape",)), nchw)
    return {name: tuple(shape.tolist()) for name, (shape,) in measured.items()}


def _create_session(
    model: onnx.ModelProto, names: Sequence[str], operators: Sequence[str]
) -> onnxruntime.InferenceSession:
    """Return a session with one output for each name and operator, in this order, of float32[1, ...] or int64[rank]."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    wanted = set(names)

    def reduce(tensors: Iterable[str]) -> list[onnx.NodeProto]:
        return [
            onnx.helper.make_node(operator, [name], [f"{name}/{operator}"], name=f"{name}/{operator}")
            for name in tensors
            if name in wanted
            for operator in operators
        ]

    given = (*model.graph.input, *model.graph.initializer)
    nodes = reduce(dict.fromkeys(value.name for value in given))
    for node in model.graph.node:
        nodes += [node, *reduce(node.output)]
    del probe.graph.node[:], probe.graph.output[:]
    probe.graph.node.extend(nodes)
    probe.graph.output.extend(
        onnx.ValueInfoProto(name=f"{name}/{operator}") for name in names for operator in operators
    )
    options = onnxruntime.SessionOptions()
    # Without these, fused nodes hide tensors, and all reductions run last.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    return onnxruntime.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session: onnxruntime.InferenceSession, nchw: Nchw) -> dict[str, list[NDArray[Any]]]:
    """Return the results of each tensor by its name, in the order of the operators."""
    (source,) = session.get_inputs()
    results: dict[str, list[NDArray[Any]]] = {}
    for output, values in zip(session.get_outputs(), session.run(None, {source.name: nchw}), strict=True):
        results.setdefault(output.name.rpartition("/")[0], []).append(values)
    return results
