"""FP16 and INT8: the float core network with its precision decided in the graph.

TensorRT 11 and TensorRT-RTX take precision from the ONNX alone, so each precision is a graph of
its own. The first and last convolution and the global residual stay in float: 8 bits there
would be noise in the picture itself. The CPU's layout may take them too, where black is 0: the
picture that comes in is 8 bits already, the one that goes out will be, and the noise is that of
the residual rounded once more.
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
"""`int8`: symmetric, weights and activations of convolutions, what TensorRT fuses; `int8_cpu`:
unsigned activations through all that lies between convolutions, what ONNX Runtime's CPU kernels fuse."""
Planes = NDArray[np.float32]
"""float32[N, C, H, W] in the network's order and range: what the core takes."""

Ranges = dict[str, tuple[float, float]]
"""Least and greatest value of each tensor."""

FP16_MAX = 65_504.0
_FP16_HEADROOM = 8.0
"""Values this many times nearer than the greatest are kept in float: other frames may be brighter."""


def prepared(core: onnx.ModelProto) -> onnx.ModelProto:
    """A float core with shapes inferred and constants folded, as ONNX Runtime's quantiser wants it."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "core.onnx", Path(folder) / "prepared.onnx"
        onnx.save(core, before)
        quant_pre_process(str(before), str(after), skip_symbolic_shape=True)
        return onnx.load(after)


def convolutions(core: onnx.ModelProto, *, whole: bool = False) -> list[str]:
    """Names of the nodes that may be quantised: all convolutions; without `whole` not the first and the last."""
    names = [node.name for node in core.graph.node if node.op_type == "Conv"]
    return names if whole else names[1:-1]


def fp16(core: onnx.ModelProto, frames: Iterable[Planes]) -> onnx.ModelProto:
    """The core in half precision, but for the residual and whatever comes near to overflowing on `frames`.

    Inputs and outputs stay float32.
    """
    kept = {node.name for node in core.graph.node if core.graph.output[0].name in node.output}
    peaks = _peaks(core, frames)
    for node in core.graph.node:
        if any(peaks.get(name, 0.0) > FP16_MAX / _FP16_HEADROOM for name in (*node.input, *node.output)):
            kept.add(node.name)
    half = convert_float_to_float16(copy.deepcopy(core), keep_io_types=True, node_block_list=sorted(kept))
    _drop_round_trips(half.graph)
    return _in_order(half)


def int8(
    core: onnx.ModelProto,
    ranges: Ranges,
    layout: Layout,
    *,
    quantised: Collection[str],
    pixel_range: tuple[float, float] | None = None,
) -> onnx.ModelProto:
    """The core as Q/DQ graph: the convolutions named in `quantised` in 8 bits, the others in float.

    `core`: as `prepared` gives it; `ranges`: of its tensors, asymmetric, from `export.quantization.calibration`.
    `pixel_range`: that of pixels, for a core that is quantised from end to end.
    """
    if not quantised:
        return core
    symmetric = layout == "int8"
    between = [] if symmetric else ["Relu", "Concat", "MaxPool", "Add", "DepthToSpace"]
    excluded = [node.name for node in core.graph.node if node.op_type == "Conv" and node.name not in quantised]
    if pixel_range is None:
        excluded += [node.name for node in core.graph.node if core.graph.output[0].name in node.output]
    else:
        ranges = ranges | {tensor.name: pixel_range for tensor in (core.graph.input[0], core.graph.output[0])}
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "QuantizeBias": not symmetric,
        "AddQDQPairToWeight": symmetric,
        "DedicatedQDQPair": symmetric,
        "OpTypesToExcludeOutputQuantization": ["Conv"] if symmetric else [],
        "TensorQuantOverrides": {} if symmetric else _weight_scales(core, quantised),
    }
    quantiser = QDQQuantizer(
        copy.deepcopy(core),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        tensors_range=TensorsData(
            CalibrationMethod.MinMax,
            {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()},
        ),
        nodes_to_quantize=[],
        nodes_to_exclude=excluded,
        op_types_to_quantize=["Conv", *between],
        extra_options=options,
    )
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a pre-processing that has been done
    try:
        quantiser.quantize_model()
    finally:
        logging.disable(before)
    return _in_order(quantiser.model.model)


def _weight_scales(core: onnx.ModelProto, quantised: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Scales of 8-bit weights with which no CPU saturates, as overrides for ONNX Runtime's quantiser.

    x86 without VNNI adds two products, of neighbouring input channels and unsigned activations, in 16 bits
    (`vpmaddubsw`): 255 times two weights of one sign that together pass 128 are cut off.
    """
    names = {node.input[1] for node in core.graph.node if node.name in quantised}
    scales = {}
    for weight in (each for each in core.graph.initializer if each.name in names):
        values = np.moveaxis(onnx.numpy_helper.to_array(weight), 1, -1)  # [outputs, height, width, inputs]
        pairs = np.pad(values, [(0, 0)] * 3 + [(0, values.shape[-1] % 2)]).reshape(len(values), -1, 2)
        together = np.maximum(pairs.clip(0).sum(-1), -pairs.clip(None, 0).sum(-1)).max(-1)
        scale = (together / 127).clip(np.finfo(np.float32).tiny)
        scales[weight.name] = [{"axis": 0, "scale": each, "zero_point": 0} for each in scale]
    return scales


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Nodes after what they take, which both converters leave to others."""
    graph = onnx_ir.from_proto(model)
    TopologicalSortPass()(graph)
    result: onnx.ModelProto = onnx_ir.to_proto(graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def _peaks(core: onnx.ModelProto, frames: Iterable[Planes]) -> dict[str, float]:
    """The greatest absolute value of every float tensor, found by running; constants too."""
    probe = copy.deepcopy(core)
    typed = onnx.shape_inference.infer_shapes(probe)
    names = [v.name for v in typed.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    kept = {name.name for name in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in kept)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    peaks = {t.name: float(np.abs(onnx.numpy_helper.to_array(t)).max(initial=0)) for t in core.graph.initializer}
    for planes in frames:
        for name, values in zip(outputs, session.run(outputs, {core.graph.input[0].name: planes}), strict=True):
            peaks[name] = max(peaks.get(name, 0.0), float(np.abs(values).max(initial=0)))
    return peaks


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Where a float tensor was cast to half and back, take the tensor itself: the residual adds the true input."""
    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    kinds = {node.output[0]: node.attribute[0].i for node in casts.values()}
    for back in list(casts.values()):
        there = casts.get(back.input[0])
        if there is None or kinds[back.output[0]] != TensorProto.FLOAT or kinds[there.output[0]] != TensorProto.FLOAT16:
            continue
        old, new = back.output[0], there.input[0]
        graph.node.remove(back)
        if old in {output.name for output in graph.output}:  # which keeps its name
            old, new = new, old
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
