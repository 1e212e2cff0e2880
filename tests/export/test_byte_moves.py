"""The layout for CPUs on ONNX Runtime: nothing is computed in float, and the bits are those of the plain graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.graph import pixel_interface, yuv420_interface
from export.graph.depth_to_space import replace_depth_to_space
from export.graph.fuse import fuse_convolutions
from export.graph.yuv420 import CODE_RANGE, to_yuv420
from export.network import Network
from export.quantization import int8
from export.quantization.calibration import calibrate_ranges, compute_core_inputs
from export.quantization.int8 import quantize_int8
from export.quantization.precision import list_convolutions, prepare_for_quantization
from export.torch_to_onnx import export_to_onnx, get_view
from runtime.engines import BUNDLED
from tests.conftest import make_image
from train.models import create_generator

ENGINES = sorted(path.name for path in BUNDLED.parent.glob("*_int8_cpu_yuv420.onnx"))


def count_operators(content: bytes, folder: Path) -> Counter[str]:
    """Return how often ONNX Runtime's optimised graph of an engine has each operator."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)


@pytest.mark.parametrize("name", ENGINES)
def test_bundled_engines_for_planes_compute_only_shares_in_float(name: str, tmp_path: Path) -> None:
    """The shares of both resolutions, five values for 8x8 pixels, are the result of one Sigmoid."""
    assert len(ENGINES) == 4
    operators = count_operators(BUNDLED.with_name(name).read_bytes(), tmp_path)
    assert operators["QLinearConv"] > 40
    in_float = ("Conv", "Relu", "Sigmoid", "DequantizeLinear", "QuantizeLinear")
    assert [operators[operator] for operator in in_float] == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("has_planes", [False, True])
def test_the_result_is_that_of_the_plain_graph(
    has_planes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(8, 16), blocks=(1, 1)).eval()
    network = Network(generator, {}, "")
    core = prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))
    if has_planes:
        core, view = to_yuv420(core, get_view(generator))
        core, network = prepare_for_quantization(core), Network(generator, {}, "", planes=view)
    frames = [network.adapt(make_image(66, 50, seed)) for seed in range(3)]
    inputs = compute_core_inputs(network.wrap(core), core.graph.input[0].name, frames)
    ranges = calibrate_ranges(core, inputs, "minmax")

    def make() -> bytes:
        layers = list_convolutions(core, include_ends=True)
        pixel_range = CODE_RANGE if has_planes else generator.pixel_range
        quantized = quantize_int8(
            replace_depth_to_space(core), ranges, "int8_cpu", layers=layers, pixel_range=pixel_range
        )
        return network.wrap(quantized, keep_bytes=True).SerializeToString()

    rewritten = make()
    monkeypatch.setattr(int8, "use_bytes", lambda graph: None)
    for module in (pixel_interface, yuv420_interface):
        monkeypatch.setattr(module, "remove_first_quantize", lambda graph: None)
    plain = make()
    floats = {"DequantizeLinear", "QuantizeLinear"}
    assert floats & count_operators(plain, tmp_path).keys()
    assert not floats & count_operators(rewritten, tmp_path).keys()
    results = []
    for content in (plain, rewritten):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        results.append([session.run(None, {"blurred": frame[np.newaxis]})[0] for frame in frames])
    assert np.array_equal(*results)
    assert not np.array_equal(results[0], np.stack(frames)[:, np.newaxis])
