"""Foreign graphs brought into the form that the chain expects: float32, opset 18, constants as initialisers, names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from export.foreign.reader import STANDARD_DOMAINS

PREFIX = "net."
"""Beginning of all names of a foreign graph, so that none equals one that the chain gives."""
OPSET = 18
IR_VERSION = 10
_HALF = {TensorProto.FLOAT16, TensorProto.DOUBLE}


def normalize(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model that computes the same in float32, with the input and outputs under `PREFIX` and their names."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs)
    _move_constants(graph)
    _to_float32(graph)
    result = _convert_opset(result)
    result = compose.add_prefix(result, PREFIX)
    for index, node in enumerate(result.graph.node):  # empty and repeated names are allowed in ONNX, but not by us
        node.name = f"{PREFIX}{node.op_type.lower()}_{index}"
        node.doc_string = ""
        del node.metadata_props[:]
    result.ir_version = IR_VERSION
    del result.metadata_props[:]
    result.producer_name, result.doc_string = "", ""
    return result


def _move_constants(graph: onnx.GraphProto) -> None:
    """Turn Constant nodes into initialisers, which is where the chain looks for weights."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        value = node.attribute[0]
        if value.name == "value":
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
        else:
            kind = np.int64 if value.name.startswith("value_int") else np.float32
            tensor = numpy_helper.from_array(np.array(helper.get_attribute_value(value), kind))
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _to_float32(graph: onnx.GraphProto) -> None:
    """Make float32 of every tensor in half or double precision."""
    tensors = [*graph.initializer, *(a.t for node in graph.node for a in node.attribute if a.name == "value")]
    for tensor in tensors:
        if tensor.data_type in _HALF:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _HALF:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for attribute in _list_cast_targets(graph.node):
        if attribute.i in _HALF:
            attribute.i = TensorProto.FLOAT


def _list_cast_targets(nodes: Iterable[onnx.NodeProto]) -> list[onnx.AttributeProto]:
    return [attribute for node in nodes for attribute in node.attribute if attribute.name in {"to", "dtype"}]


def _convert_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model in opset 18; in its own, if it is newer and needs something that 18 lacks."""
    opset = max(imported.version for imported in model.opset_import if imported.domain in STANDARD_DOMAINS)
    if opset < OPSET:
        return version_converter.convert_version(model, OPSET)
    relabelled = onnx.ModelProto()
    relabelled.CopyFrom(model)
    for imported in relabelled.opset_import:
        imported.version = OPSET if imported.domain in STANDARD_DOMAINS else imported.version
    with contextlib.suppress(onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        onnx.checker.check_model(relabelled, full_check=True)
        return relabelled
    return model
