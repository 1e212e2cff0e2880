"""Gates and attention of INT8 engines for CPUs: products of two tensors of 8 bits are computed in 8 bits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from export.quantization.calibration import calibrate_ranges
from export.quantization.int8 import quantize_int8

LAYERS = ("first", "attention", "last")
SHAPE = (1, 4, 16, 24)
AXES = numpy_helper.from_array(np.array([2, 3]), "axes")


def write_core() -> onnx.ModelProto:
    """Return a block of NAFNet with a plain square behind it."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(0, 0.5, shape).astype(np.float32), f"{name}.weight")
        for name, shape in zip(LAYERS, [(8, 4, 3, 3), (4, 4, 1, 1), (4, 4, 1, 1)], strict=True)
    ]
    nodes = [
        helper.make_node("Conv", ["x", "first.weight"], ["wide"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Split", ["wide"], ["left", "right"], "split", axis=1, num_outputs=2),
        helper.make_node("Mul", ["left", "right"], ["gated"], "gate"),
        helper.make_node("ReduceMean", ["gated", "axes"], ["mean"], "pool"),
        helper.make_node("Conv", ["mean", "attention.weight"], ["factor"], "attention"),
        helper.make_node("Mul", ["gated", "factor"], ["scaled"], "scale"),
        helper.make_node("Conv", ["scaled", "last.weight"], ["result"], "last"),
        helper.make_node("Mul", ["result", "result"], ["square"], "square"),
        helper.make_node("Sqrt", ["square"], ["y"], "root"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    graph = helper.make_graph(nodes, "block", values[:1], values[1:], [*weights, AXES])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


CORE = write_core()
FRAMES = [np.random.default_rng(seed).random(SHAPE, np.float32) for seed in range(3)]


def quantize(layers: Iterable[str], layout: str = "int8_cpu") -> onnx.ModelProto:
    return quantize_int8(CORE, calibrate_ranges(CORE, FRAMES, "minmax"), layout, layers=frozenset(layers))


def list_byte_products(model: onnx.ModelProto) -> set[str]:
    """Return the names of the products that read and write bytes."""
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    readers = {name: node.op_type for node in model.graph.node for name in node.input}
    return {
        node.name
        for node in model.graph.node
        if node.op_type == "Mul"
        and {producers[name] for name in node.input} == {"DequantizeLinear"}
        and readers[node.output[0]] == "QuantizeLinear"
    }


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": FRAMES[0]})[0]


def test_gates_and_attention_have_8_bits_and_squares_have_not() -> None:
    model = quantize(LAYERS)
    assert list_byte_products(model) == {"gate", "scale"}
    expected = run(CORE)
    assert np.abs(run(model) - expected).max() < 0.03 * np.abs(expected).max()


def test_a_gate_of_a_layer_in_float_stays_in_float() -> None:
    assert list_byte_products(quantize(["attention", "last"])) == set()


def test_the_layout_for_tensorrt_quantizes_convolutions_alone() -> None:
    assert list_byte_products(quantize(LAYERS, "int8")) == set()
