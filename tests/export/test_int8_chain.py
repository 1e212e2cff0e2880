"""INT8 engines for NVIDIA GPUs: what is chosen by measurement, and what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export import int8_chain
from export.__main__ import main
from export.verify import create_session
from runtime.engines import BUNDLED, BUNDLED_NAMES
from runtime.engines.onnx import inspect
from tests.export.conftest import BUNDLED_RUN


def export_int8(folder: Path, pairs: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Export `edge-s` in INT8; return `report.json` and `report.md`."""
    arguments = ["--out", str(folder / "out"), "--pairs", str(pairs), "--precision", "int8", "--calib-method", "minmax"]
    assert main([str(BUNDLED_RUN), *arguments, *options]) == 0
    return json.loads((folder / "out" / "report.json").read_text()), (folder / "out" / "report.md").read_text()


def spoil(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model after its last convolution, which is in half precision, has got wrong weights."""
    (name,) = [node.input[1] for node in model.graph.node if node.op_type == "Conv"][-1:]
    (constant,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    constant.CopyFrom(numpy_helper.from_array(-30 * numpy_helper.to_array(constant), name))
    return model


def test_weights_have_one_scale_and_the_residual_half_precision(tmp_path: Path, pairs: Path) -> None:
    report, text = export_int8(tmp_path, pairs)
    assert report["calibration"]["int8_per_channel"] is False
    assert report["calibration"]["int8_half_residual"] is True
    assert "weights have one scale for each convolution, and the residual has half precision" in text
    spec = report["engines"]["int8"]["spec"]
    assert (spec["float_layers"], spec["budget_db"], spec["forced"]) == (4, 0.3, False)
    assert spec["exported_with"].endswith("opset 19")


def test_weights_have_a_scale_for_each_channel_if_one_scale_exceeds_the_budget(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize = int8_chain.quantize_int8

    def quantize_badly(*arguments: Any, per_channel: bool = True, **options: Any) -> onnx.ModelProto:
        model = quantize(*arguments, per_channel=per_channel, **options)
        return model if per_channel else spoil(model)

    monkeypatch.setattr(int8_chain, "quantize_int8", quantize_badly)
    report, text = export_int8(tmp_path, pairs)
    assert report["calibration"]["int8_per_channel"] is True
    assert "weights have a scale for each output channel" in text
    assert report["engines"]["int8"]["spec"]["loss_db"] <= 0.3


def test_the_residual_stays_in_float_if_half_precision_exceeds_the_budget(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = int8_chain.convert_to_fp16

    def convert_badly(core: onnx.ModelProto, inputs: Any, *, half_residual: bool) -> onnx.ModelProto:
        model = convert(core, inputs, half_residual=half_residual)
        return spoil(model) if half_residual else model

    monkeypatch.setattr(int8_chain, "convert_to_fp16", convert_badly)
    report, text = export_int8(tmp_path, pairs)
    assert report["calibration"]["int8_half_residual"] is False
    assert "the residual has float32" in text


@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_bundled_int8_engines_state_what_they_lose(name: str) -> None:
    path = BUNDLED.with_name(f"{name}_int8.onnx")
    spec = inspect(path)
    assert (spec.name, spec.precision, spec.float_layers) == (f"{name}_int8", "int8", 4)
    assert spec.weights_sha256 == inspect(BUNDLED.with_name(f"{name}_fp16.onnx")).weights_sha256
    assert spec.loss_db is not None
    assert spec.loss_db <= 0.3 == spec.budget_db
    assert not spec.forced
    assert path.stat().st_size < 8e6
    assert f"`{name}_int8`" in (path.parent / f"{name}.md").read_text()


def test_biases_are_measured_as_they_are_in_the_graph() -> None:
    """ONNX Runtime would divide the bias by a product of scales, which overflows half precision here: 0.25 / 6e-8."""
    input_scale, weight_scale = np.float16(1 / 127), np.float16(1e-3 / 127)
    constants = {
        "per_code": np.float16(1 / 255),
        "input_scale": input_scale,
        "weight_scale": weight_scale,
        "zero": np.int8(0),
        "weights": np.full((1, 1, 1, 1), 127, np.int8),  # 0.001
        "bias": np.array([0.25], np.float16),
        "codes_per_value": np.float16(255),
    }
    nodes = [
        helper.make_node("Cast", ["blurred"], ["codes"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["codes", "per_code"], ["values"]),
        helper.make_node("QuantizeLinear", ["values", "input_scale", "zero"], ["quantized"]),
        helper.make_node("DequantizeLinear", ["quantized", "input_scale", "zero"], ["input"]),
        helper.make_node("DequantizeLinear", ["weights", "weight_scale", "zero"], ["kernel"]),
        helper.make_node("Conv", ["input", "kernel", "bias"], ["output"]),
        helper.make_node("QuantizeLinear", ["output", "input_scale", "zero"], ["output_quantized"]),
        helper.make_node("DequantizeLinear", ["output_quantized", "input_scale", "zero"], ["output_values"]),
        helper.make_node("Mul", ["output_values", "codes_per_value"], ["output_codes"]),
        helper.make_node("Cast", ["output_codes"], ["sharp"], to=TensorProto.UINT8),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, [1, 1, 4, 4]) for name in ("blurred", "sharp")]
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in constants.items()]
    graph = helper.make_graph(nodes, "bias", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    (codes,) = create_session(model).run(None, {"blurred": np.zeros((1, 1, 4, 4), np.uint8)})
    assert np.array_equal(codes, np.full((1, 1, 4, 4), 64))
