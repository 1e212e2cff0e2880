"""FP16 cores, and what FP16 and INT8 cores share: the precision of a network is decided in its ONNX graph.

TensorRT 11 and TensorRT-RTX take the precision from the graph alone, so every precision is a graph of its own.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.graph.measure import Nchw, measure_extremes
from export.graph.yuv420 import CONVERSION
from export.quantization.float_nodes import list_float_nodes

FP16_MAX = 65_504.0
_FP16_HEADROOM = 8.0
"""Tensors that reach the largest half-precision value divided by this stay in float: other frames may be brighter."""


def prepare_for_quantization(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float core with inferred shapes and folded constants, as ONNX Runtime's quantiser expects it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "core.onnx", Path(folder) / "prepared.onnx"
        onnx.save(core, source)
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
        prepared = onnx.load(target)
    # ONNX Runtime keeps the types of tensors that it has removed, such as the result of a multiplication by 1.
    graph = prepared.graph
    tensors = {name for node in graph.node for name in node.output}
    kept = [value for value in graph.value_info if value.name in tensors]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    return prepared


def list_convolutions(core: onnx.ModelProto, *, include_ends: bool = False) -> list[str]:
    """Return the names of the convolutions that may be quantised; the first and last ones only with `include_ends`.

    First are those that read the image, last those whose results are the residual, each with no other convolution
    between. Convolutions that convert planes to BGR and back are never quantised, and do not count.
    """
    names = [node.name for node in core.graph.node if _is_convolution(node)]
    ends = set() if include_ends else _find_ends(core.graph)
    return [name for name in names if name not in ends]


def _is_convolution(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and not node.name.startswith(f"{CONVERSION}.")


def _find_ends(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the convolutions that have no other one before them, or none behind them."""
    ends = set()
    for tensor, forwards in ((graph.input[0].name, True), (graph.output[0].name, False)):
        reached = {tensor}
        for node in graph.node if forwards else reversed(graph.node):  # in topological order
            near, far = (node.input, node.output) if forwards else (node.output, node.input)
            if reached.isdisjoint(near) or node.op_type == "Shape":  # a shape holds no pixels
                continue
            if _is_convolution(node):
                ends.add(node.name)
            else:
                reached.update(far)
    return ends


def convert_to_fp16(core: onnx.ModelProto, inputs: Iterable[Nchw], *, half_residual: bool = False) -> onnx.ModelProto:
    """Return the core in half precision, except for nodes that may overflow and, without `half_residual`, the residual.

    A node may overflow if one of its tensors comes near the largest half-precision value on `inputs`, or if it is one
    of `list_float_nodes`. The input and output of the core stay float32.
    """
    float_nodes = list_float_nodes(core)
    if not half_residual:
        float_nodes |= {node.name for node in core.graph.node if core.graph.output[0].name in node.output}
    peaks = _measure_peaks(core, inputs)
    for node in core.graph.node:
        if any(peaks.get(name, 0.0) > FP16_MAX / _FP16_HEADROOM for name in (*node.input, *node.output)):
            float_nodes.add(node.name)
    half = convert_float_to_float16(copy.deepcopy(core), keep_io_types=True, node_block_list=sorted(float_nodes))
    _remove_cast_pairs(half.graph)
    return sort_nodes(half)


def sort_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every node after the producers of its inputs, which neither converter guarantees."""
    graph = onnx_ir.from_proto(model)
    TopologicalSortPass()(graph)
    result: onnx.ModelProto = onnx_ir.to_proto(graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def _measure_peaks(core: onnx.ModelProto, inputs: Iterable[Nchw]) -> dict[str, float]:
    """Return the largest absolute value of every float tensor on `inputs`, and of every constant."""
    peaks = {t.name: float(np.abs(onnx.numpy_helper.to_array(t)).max(initial=0)) for t in core.graph.initializer}
    for name, (low, high) in measure_extremes(core, inputs).items():
        peaks[name] = max(-low, high)
    return peaks


def _remove_cast_pairs(graph: onnx.GraphProto) -> None:
    """Remove casts of a float tensor to half and back, so that the residual adds the exact input."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    targets = {node.output[0]: node.attribute[0].i for node in casts.values()}
    for to_float in list(casts.values()):
        to_half = casts.get(to_float.input[0])
        if to_half is None or targets[to_float.output[0]] != TensorProto.FLOAT:
            continue
        if targets[to_half.output[0]] != TensorProto.FLOAT16:
            continue
        old, new = to_float.output[0], to_half.input[0]
        graph.node.remove(to_float)
        if old in {output.name for output in graph.output}:  # an output of the graph keeps its name
            old, new = new, old
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
