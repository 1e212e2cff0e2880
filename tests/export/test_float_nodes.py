"""Nodes that half precision computes wrongly stay in float32, also where the calibration frames do not show it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from export.quantization import precision
from export.quantization.float_nodes import list_float_nodes
from export.quantization.precision import convert_to_fp16


def build_core() -> onnx.ModelProto:
    """Return a core that normalises the channels of each pixel, then scales them by their mean over the frame."""
    constants = {
        "scale": np.float32(400),
        "eps": np.float32(1e-6),
        "channels": [1],
        "pixels": [2, 3],
        "add": np.float32(1),
    }
    nodes = [
        ("Mul", ["x", "scale"], "wide", {}),
        ("ReduceMean", ["wide", "channels"], "mean", {}),
        ("Sub", ["wide", "mean"], "centred", {}),
        ("Mul", ["centred", "centred"], "square", {}),
        ("ReduceMean", ["square", "channels"], "variance", {}),
        ("Add", ["variance", "eps"], "positive", {}),
        ("Sqrt", ["positive"], "deviation", {}),
        ("Reciprocal", ["deviation"], "factor", {}),
        ("Mul", ["centred", "factor"], "normal", {}),
        ("ReduceMean", ["normal", "pixels"], "pooled", {}),
        ("Mul", ["normal", "pooled"], "attended", {}),
        ("Add", ["attended", "add"], "y", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output], name=output, **options) for kind, inputs, output, options in nodes],
        "norm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def largest_error(core: onnx.ModelProto, calibration: np.ndarray, image: np.ndarray) -> float:
    """Return the largest error of the core in half precision, computed as written, without ONNX Runtime's casts."""
    half = convert_to_fp16(core, [calibration])
    with np.errstate(all="ignore"):
        computed = ReferenceEvaluator(half).run(None, {"x": image})[0]
    return float(np.abs(computed - ReferenceEvaluator(core).run(None, {"x": image})[0]).max())


def test_mean_squares_and_sums_over_pixels_are_listed() -> None:
    assert list_float_nodes(build_core()) == {"square", "variance", "positive", "deviation", "factor", "pooled"}


def test_the_length_of_a_vector_and_the_quotient_by_it_are_listed() -> None:
    """Restormer divides each channel by its length over all pixels, which is at least 1e-12."""
    core = build_core()
    nodes = [("ReduceL2", ["x", "pixels"]), ("Clip", ["length", "eps"]), ("Expand", ["least", "shape"])]
    nodes += [("Div", ["x", "wide_length"]), ("Relu", ["quotient"])]
    outputs = ["length", "least", "wide_length", "quotient", "y"]
    del core.graph.node[:]
    core.graph.node.extend(
        helper.make_node(kind, inputs, [output], name=output)
        for (kind, inputs), output in zip(nodes, outputs, strict=True)
    )
    assert list_float_nodes(core) == {"length", "least", "wide_length", "quotient"}


def test_normalisation_is_right_for_images_brighter_than_those_of_the_calibration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core, rng = build_core(), np.random.default_rng(0)
    image = rng.random((1, 3, 8, 8), dtype=np.float32)
    dim = image / 50  # squares of at most 64, those of the image reach 160,000
    assert largest_error(core, dim, image) < 0.01
    monkeypatch.setattr(precision, "list_float_nodes", lambda _core: set())
    assert largest_error(core, dim, image) > 0.1
