"""Extremes and shapes of all tensors of a network, and the choice of methods by their size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model
from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

from export.graph.measure import list_float_tensors, measure_extremes, measure_shapes
from export.quantization import calibration


@pytest.fixture
def network() -> onnx.ModelProto:
    return parse_model(
        """<ir_version: 8, opset_import: ["" : 19]>
        branches (float[1, 3, h, w] image) => (float[1, 3, h, w] restored)
        <float[3, 3, 1, 1] kernel = {1, 2, 3, -4, 5, 6, -7, -8, 9}>
        {
            features = Conv(image, kernel)
            positive = Relu(features)
            size = Shape(positive)
            exact = Abs(features)
            restored = Sub(exact, positive)
        }"""
    )


def test_extremes_are_those_of_the_calibrator(network: onnx.ModelProto, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    inputs = [rng.uniform(-1, 1, (1, 3, 8, 12)).astype(np.float32) * scale for scale in (1, 5, 2)]

    class Reader(CalibrationDataReader):
        frames = iter([{"image": nchw} for nchw in inputs])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.frames, None)

    onnx.save(onnx.shape_inference.infer_shapes(network), tmp_path / "network.onnx")
    calibrator = create_calibrator(
        str(tmp_path / "network.onnx"),
        None,
        augmented_model_path=str(tmp_path / "augmented.onnx"),
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"symmetric": False},
    )
    calibrator.collect_data(Reader())
    ranges = {name: data.range_value for name, data in calibrator.compute_data().data.items()}
    expected = {name: (low.item(), high.item()) for name, (low, high) in ranges.items()}
    assert measure_extremes(network, inputs) == expected
    assert set(expected) == {"image", "features", "positive", "exact", "restored"}


def test_a_tensor_without_numbers_does_not_hide_the_others(network: onnx.ModelProto) -> None:
    inputs = [np.full((1, 3, 2, 2), value, np.float32) for value in (np.nan, 2.0)]
    assert measure_extremes(network, inputs)["image"] == (2.0, 2.0)


def test_shapes_are_those_for_this_input(network: onnx.ModelProto) -> None:
    shapes = measure_shapes(network, ["image", "positive"], np.zeros((1, 3, 6, 4), np.float32))
    assert shapes == {"image": (1, 3, 6, 4), "positive": (1, 3, 6, 4)}


def test_methods_that_need_all_tensors_are_left_out_of_large_networks(
    network: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    nchw = np.zeros((1, 3, 10, 10), np.float32)
    tensor_bytes = len(list_float_tensors(network)) * 3 * 100 * 4
    monkeypatch.setattr(calibration, "HISTOGRAM_BYTES", tensor_bytes)
    assert calibration.select_methods(network, nchw) == ["minmax", "entropy", "percentile"]
    monkeypatch.setattr(calibration, "HISTOGRAM_BYTES", tensor_bytes - 1)
    assert calibration.select_methods(network, nchw) == ["minmax"]


def test_constants_are_measured_by_their_shape_alone() -> None:
    """A constant that is multiplied from the left, and that is an input too, as before IR version 4."""
    network = parse_model(
        """<ir_version: 3, opset_import: ["" : 19]>
        product (float[1, 3, h, w] image, float[5, 2] factor) => (float[1, 3, 5, w] restored)
        <float[5, 2] factor = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}>
        { restored = MatMul(factor, image) }"""
    )
    nchw = np.ones((1, 3, 2, 4), np.float32)
    assert measure_shapes(network, ["factor", "restored"], nchw) == {"factor": (5, 2), "restored": (1, 3, 5, 4)}
    assert measure_extremes(network, [nchw]) == {"image": (1.0, 1.0), "restored": (3.0, 19.0)}
