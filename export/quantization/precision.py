"""FP16 and INT8 cores: the precision of a network is decided in its ONNX graph.

TensorRT 11 and TensorRT-RTX take the precision from the graph alone, so every precision is a graph of its own. The
first and the last convolution and the global residual stay in float: quantising them to 8 bits would add noise to the
image itself. The layout for CPUs may quantise them too if black is 0: the input image has 8 bits anyway, the output
image gets 8 bits anyway, and the only additional noise is that the residual is rounded a second time.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_ir.passes.common import TopologicalSortPass
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16

Layout = Literal["int8", "int8_cpu"]
"""Layout of the Q/DQ nodes.

`int8`: symmetric weights and activations of convolutions only; TensorRT fuses this layout.
`int8_cpu`: unsigned activations, also through the operators between convolutions; ONNX Runtime's CPU kernels fuse it.
"""
Nchw = NDArray[np.float32]
"""Input of a core: float32[N, C, H, W] in the network's channel order and pixel range."""
Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value of each tensor, by the tensor's name."""

FP16_MAX = 65_504.0
_FP16_HEADROOM = 8.0
"""Tensors that reach the largest half-precision value divided by this stay in float: other frames may be brighter."""
_CPU_OPERATORS = ["Relu", "Concat", "MaxPool", "Add", "DepthToSpace"]
"""Operators between convolutions that the layout `int8_cpu` quantises."""


def prepare_for_quantization(core: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float core with inferred shapes and folded constants, as ONNX Runtime's quantiser expects it."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "core.onnx", Path(folder) / "prepared.onnx"
        onnx.save(core, source)
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
        return onnx.load(target)


def list_convolutions(core: onnx.ModelProto, *, include_ends: bool = False) -> list[str]:
    """Return the names of the convolutions that may be quantised; the first and last only with `include_ends`."""
    names = [node.name for node in core.graph.node if node.op_type == "Conv"]
    return names if include_ends else names[1:-1]


def convert_to_fp16(core: onnx.ModelProto, inputs: Iterable[Nchw]) -> onnx.ModelProto:
    """Return the core in half precision, except for the residual and for nodes that may overflow.

    A node may overflow if one of its tensors comes near the largest half-precision value on `inputs`. The input and
    output of the core stay float32.
    """
    float_nodes = {node.name for node in core.graph.node if core.graph.output[0].name in node.output}
    peaks = _measure_peaks(core, inputs)
    for node in core.graph.node:
        if any(peaks.get(name, 0.0) > FP16_MAX / _FP16_HEADROOM for name in (*node.input, *node.output)):
            float_nodes.add(node.name)
    half = convert_float_to_float16(copy.deepcopy(core), keep_io_types=True, node_block_list=sorted(float_nodes))
    _remove_cast_pairs(half.graph)
    return _sort_nodes(half)


def quantize_int8(
    core: onnx.ModelProto,
    ranges: Ranges,
    layout: Layout,
    *,
    layers: Collection[str],
    pixel_range: tuple[float, float] | None = None,
) -> onnx.ModelProto:
    """Return the core with Q/DQ nodes: the convolutions named in `layers` compute in 8 bits, the others in float.

    `core`: a result of `prepare_for_quantization`. `ranges`: asymmetric ranges of its tensors, from
    `export.quantization.calibration`. `pixel_range`: values of black and white, for a core that is quantised from end
    to end; its input and output then have exactly this range.
    """
    if not layers:
        return core
    is_symmetric = layout == "int8"
    float_nodes = [node.name for node in core.graph.node if node.op_type == "Conv" and node.name not in layers]
    if pixel_range is None:
        float_nodes += [node.name for node in core.graph.node if core.graph.output[0].name in node.output]
    else:
        ranges = ranges | {tensor.name: pixel_range for tensor in (core.graph.input[0], core.graph.output[0])}
    options: dict[str, Any] = {
        "ActivationSymmetric": is_symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not is_symmetric,
        "AddQDQPairToWeight": is_symmetric,
        "DedicatedQDQPair": is_symmetric,
        "OpTypesToExcludeOutputQuantization": ["Conv"] if is_symmetric else [],
        "TensorQuantOverrides": {} if is_symmetric else _compute_weight_scales(core, layers),
    }
    quantizer = QDQQuantizer(
        copy.deepcopy(core),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if is_symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
        ),
        nodes_to_quantize=[],
        nodes_to_exclude=float_nodes,
        op_types_to_quantize=["Conv", *([] if is_symmetric else _CPU_OPERATORS)],
        extra_options=options,
    )
    log_level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the quantiser recommends a preparation that has already been done
    try:
        quantizer.quantize_model()
    finally:
        logging.disable(log_level)
    return _sort_nodes(quantizer.model.model)


def _compute_weight_scales(core: onnx.ModelProto, layers: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Return scales of 8-bit weights that saturate on no CPU, as overrides for ONNX Runtime's quantiser.

    x86 CPUs without VNNI add two products of neighbouring input channels in 16 bits (`vpmaddubsw`). With unsigned
    activations up to 255, the sum saturates if two weights of the same sign add up to more than 128.
    """
    names = {node.input[1] for node in core.graph.node if node.name in layers}
    overrides = {}
    for tensor in core.graph.initializer:
        if tensor.name not in names:
            continue
        values = np.moveaxis(onnx.numpy_helper.to_array(tensor), 1, -1)  # [outputs, height, width, inputs]
        pairs = np.pad(values, [(0, 0)] * 3 + [(0, values.shape[-1] % 2)]).reshape(len(values), -1, 2)
        pair_sums = np.maximum(pairs.clip(0).sum(-1), -pairs.clip(None, 0).sum(-1)).max(-1)
        scales = (pair_sums / 127).clip(np.finfo(np.float32).tiny)
        overrides[tensor.name] = [{"axis": 0, "scale": scale, "zero_point": 0} for scale in scales]
    return overrides


def _sort_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every node after the producers of its inputs, which neither converter guarantees."""
    graph = onnx_ir.from_proto(model)
    TopologicalSortPass()(graph)
    result: onnx.ModelProto = onnx_ir.to_proto(graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def _measure_peaks(core: onnx.ModelProto, inputs: Iterable[Nchw]) -> dict[str, float]:
    """Return the largest absolute value of every float tensor on `inputs`, and of every constant."""
    probe = copy.deepcopy(core)
    typed = onnx.shape_inference.infer_shapes(probe)
    names = [v.name for v in typed.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    core_outputs = {output.name for output in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in core_outputs)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    peaks = {t.name: float(np.abs(onnx.numpy_helper.to_array(t)).max(initial=0)) for t in core.graph.initializer}
    for nchw in inputs:
        for name, values in zip(outputs, session.run(outputs, {core.graph.input[0].name: nchw}), strict=True):
            peaks[name] = max(peaks.get(name, 0.0), float(np.abs(values).max(initial=0)))
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
