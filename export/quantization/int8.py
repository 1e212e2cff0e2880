"""INT8 cores: Q/DQ nodes for TensorRT, or for ONNX Runtime's CPU kernels.

The convolutions that read the image, those that write the residual, and the global residual are not quantised: 8 bits
would add noise to the image itself. The layout for CPUs may quantise them too if black is 0: the input image has 8 bits
anyway, the output image gets 8 bits anyway, and the only additional noise is that the residual is rounded twice.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from export.quantization.byte_moves import use_bytes
from export.quantization.precision import FP16_MAX, sort_nodes

Layout = Literal["int8", "int8_cpu"]
"""Layout of the Q/DQ nodes.

`int8`: symmetric weights and activations of convolutions only; TensorRT fuses this layout.
`int8_cpu`: unsigned activations, also through the operators between convolutions; ONNX Runtime's CPU kernels fuse it.
"""
Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value of each tensor, by the tensor's name."""

QDQ_OPSET = 19
"""First ONNX opset whose Q/DQ nodes have half-precision scales; TensorRT 10.3 (JetPack 6) reads up to 20."""
_CPU_OPERATORS = ["Relu", "Concat", "MaxPool", "Add", "DepthToSpace", "Slice"]
"""Operators between convolutions that the layout `int8_cpu` quantises."""
_PRODUCT_OPERATORS = ["Mul", "Split"]
"""Operators that it quantises where all factors have 8 bits anyway: gates, and maps multiplied by an attention."""


def quantize_int8(
    core: onnx.ModelProto,
    ranges: Ranges,
    layout: Layout,
    *,
    layers: Collection[str],
    pixel_range: tuple[float, float] | None = None,
    per_channel: bool = True,
) -> onnx.ModelProto:
    """Return the core with Q/DQ nodes: the convolutions named in `layers` compute in 8 bits, the others as before.

    `core`: a result of `prepare_for_quantization`; for the layout `int8` a result of `convert_to_fp16`, so that tensors
    between convolutions have half precision. `ranges`: asymmetric ranges of the tensors of the float core, from
    `export.quantization.calibration`. `pixel_range`: values of the codes 0 and 255, for a core that is quantised from
    end to end; its input, parts of it, and its output then have exactly this range. `per_channel`: a scale for each
    output channel of the weights. With one scale, TensorRT-RTX adds bias and ReLU to a convolution, which then writes
    half precision; otherwise it writes float32.
    """
    if not layers:
        return core
    is_symmetric = layout == "int8"
    unquantized = [node.name for node in core.graph.node if node.op_type == "Conv" and node.name not in layers]
    products = set() if is_symmetric else _list_products(core, layers)
    unquantized += [
        node.name for node in core.graph.node if node.op_type in _PRODUCT_OPERATORS and node.name not in products
    ]
    if pixel_range is None:
        unquantized += [node.name for node in core.graph.node if core.graph.output[0].name in node.output]
    else:
        image, result = core.graph.input[0].name, core.graph.output[0].name
        parts = [node.output[0] for node in core.graph.node if node.op_type == "Slice" and node.input[0] == image]
        ranges = ranges | dict.fromkeys([image, *parts, result], pixel_range)
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
        _require_opset(core, QDQ_OPSET) if is_symmetric else copy.deepcopy(core),
        per_channel=per_channel,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if is_symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, _convert_ranges(core, ranges)),
        nodes_to_quantize=[],
        nodes_to_exclude=unquantized,
        op_types_to_quantize=["Conv", *([] if is_symmetric else [*_CPU_OPERATORS, *_PRODUCT_OPERATORS])],
        extra_options=options,
    )
    log_level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the quantiser recommends a preparation that has already been done
    try:
        quantizer.quantize_model()
    finally:
        logging.disable(log_level)
    if not is_symmetric:
        use_bytes(quantizer.model.model.graph)
    return sort_nodes(quantizer.model.model)


def _require_opset(core: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return a copy of the core whose ONNX opset is at least `opset`, 18 to 20.

    Opsets 19 and 20 add types and attributes with defaults to the operators of 18; no graph computes anything else.
    """
    result = copy.deepcopy(core)
    for imported in result.opset_import:
        if imported.domain in {"", "ai.onnx"}:
            imported.version = max(imported.version, opset)
    return result


def _list_products(core: onnx.ModelProto, layers: Collection[str]) -> set[str]:
    """Return the names of the products of two different tensors that both have 8 bits, and of the splits before them.

    Layer normalisations have none: their factors are differences, quotients or constants.
    """
    names: set[str] = set()
    quantized: set[str] = set()
    for node in core.graph.node:
        is_split = node.op_type == "Split" and node.input[0] in quantized
        is_product = node.op_type == "Mul" and len(set(node.input)) == 2 and quantized.issuperset(node.input)
        if is_split or is_product:
            names.add(node.name)
        if is_split or is_product or node.name in layers or node.op_type in _CPU_OPERATORS:
            quantized.update(node.output)
    return names


def _convert_ranges(core: onnx.ModelProto, ranges: Ranges) -> dict[str, tuple[np.floating[Any], np.floating[Any]]]:
    """Return the ranges in the types of the core's tensors, and those of the tensors before and after Cast nodes."""
    ranges = dict(ranges)
    for node in core.graph.node:
        if node.op_type == "Cast":
            for known, new in ((node.input[0], node.output[0]), (node.output[0], node.input[0])):
                if known in ranges:
                    ranges.setdefault(new, ranges[known])
    graph = onnx.shape_inference.infer_shapes(core).graph
    tensors = (*graph.value_info, *graph.input, *graph.output)
    halves = {tensor.name for tensor in tensors if tensor.type.tensor_type.elem_type == TensorProto.FLOAT16}
    return {name: _convert_range(bounds, half=name in halves) for name, bounds in ranges.items()}


def _convert_range(bounds: tuple[float, float], *, half: bool) -> tuple[np.floating[Any], np.floating[Any]]:
    """Return a range in half precision or float32; unused copies of tensors may exceed half precision."""
    if not half:
        return np.float32(bounds[0]), np.float32(bounds[1])
    low, high = np.clip(bounds, -FP16_MAX, FP16_MAX).astype(np.float16)
    return low, high


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
