"""Engines agree with their network at every size and with every channel order and range of pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch

from export.graph.channel_order import to_bgr_order
from export.graph.depth_to_space import replace_depth_to_space
from export.graph.fuse import fuse_convolutions
from export.graph.pixel_interface import add_pixel_interface
from export.quantization.calibration import calibrate_ranges, compute_core_inputs
from export.quantization.int8 import quantize_int8
from export.quantization.precision import list_convolutions, prepare_for_quantization
from export.torch_to_onnx import export_to_onnx, get_view
from runtime.engines import open_engine
from runtime.frame import Pixels
from runtime.metrics import psnr_db
from runtime.spec import EngineSpec
from tests.conftest import make_image
from train.models import Generator, create_generator, restore_frames
from train.models.half_resolution import HalfResolution


class Signed(Generator):
    """Network for RGB in [-1, 1] that treats the channels differently, so that a swap changes its output."""

    channel_order: ClassVar = "RGB"
    pixel_range: ClassVar = (-1.0, 1.0)
    multiple_of: ClassVar = 3

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x + 0.3 * self.mix(x) * torch.tensor([1.0, -0.5, 0.1]).view(1, 3, 1, 1))


class Plain(Signed):
    """Network for BGR in [0, 255]."""

    channel_order: ClassVar = "BGR"
    pixel_range: ClassVar = (0.0, 255.0)
    multiple_of: ClassVar = 1


def create_edge() -> Generator:
    """An untrained edge network whose residual is large enough to matter."""
    generator = create_generator("edge", widths=(8, 16), blocks=(1, 1))
    with torch.no_grad():
        generator.tail.weight.mul_(8)
    return generator


def create_half_edge() -> Generator:
    return HalfResolution(create_edge())


def create_half_signed() -> Generator:
    return HalfResolution(Signed())


def write_engine(generator: Generator, path: Path) -> Path:
    core = export_to_onnx(generator)
    model = add_pixel_interface(
        to_bgr_order(core, patch_px=generator.patch_px) if generator.channel_order == "RGB" else core,
        get_view(generator),
        spec=EngineSpec(name="engine", precision="fp32"),
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("create", [create_edge, Signed, Plain, create_half_edge, create_half_signed])
def test_engine_agrees_with_the_network(create: Callable[[], Generator], tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = create().eval()
    engine = open_engine(write_engine(generator, tmp_path / "a.onnx"), provider="cpu")
    batch = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 22, 31, 3), dtype=np.uint8), 3, axis=0)
    for frames in (batch, batch[:1, :1, :1], batch[:, :5, :17]):
        assert (
            np.abs(engine.infer(frames).astype(int) - restore_frames(generator, torch.from_numpy(frames)).numpy()).max()
            <= 1
        )
    assert np.abs(restore_frames(generator, torch.from_numpy(batch)).numpy().astype(int) - batch).mean() > 1


def quantize_from_end_to_end(generator: Generator, frames: list[Pixels]) -> onnx.ModelProto:
    """Return an engine that keeps frames as bytes."""
    view, core = get_view(generator), prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))
    float_engine = add_pixel_interface(core, view, spec=EngineSpec(name="floats"))
    ranges = calibrate_ranges(core, compute_core_inputs(float_engine, core.graph.input[0].name, frames), "minmax")
    names = list_convolutions(core, include_ends=True)
    quantised = quantize_int8(
        replace_depth_to_space(core), ranges, "int8_cpu", layers=names, pixel_range=view.pixel_range
    )
    return add_pixel_interface(quantised, view, spec=EngineSpec(name="bytes", precision="int8_cpu"), keep_bytes=True)


def test_an_engine_that_keeps_bytes_agrees_too(tmp_path: Path) -> None:
    """The core is quantised from end to end; the sizes need padding or do not."""
    torch.manual_seed(0)
    generator = create_edge().eval()
    frames = [make_image(64, 48, seed=seed) for seed in range(4)]
    model = quantize_from_end_to_end(generator, frames)
    assert "Cast" not in {node.op_type for node in model.graph.node}  # no node converts a whole frame to float
    onnx.save(model, tmp_path / "bytes.onnx")
    engine = open_engine(tmp_path / "bytes.onnx", provider="cpu")
    for frame in (frames[0], frames[1][:45, :61], frames[2][:1, :1]):
        expected = restore_frames(generator, torch.from_numpy(frame[None])).numpy()
        assert psnr_db(engine.infer(frame[None])[0], expected[0]) > 40
        assert (
            psnr_db(expected[0], frame) < 35
        )  # the network changes the frame, otherwise agreement would prove nothing


def list_openvino_convolutions(model: onnx.ModelProto) -> list[str]:
    """Return the type in which OpenVINO computes each convolution; the integer kernels have u8."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    nodes = core.compile_model(core.read_model(model.SerializeToString()), "CPU").get_runtime_model().get_ordered_ops()
    infos = [{name: node.rt_info[name].astype(str) for name in ("layerType", "runtimePrecision")} for node in nodes]
    return [info["runtimePrecision"] for info in infos if info["layerType"] == "Convolution"]


def test_openvino_computes_every_convolution_of_the_frames_in_8_bits(tmp_path: Path) -> None:
    """The pass at half the resolution reads the same frames: where both read the same tensor, both were floats."""
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(8, 16), blocks=(1, 1), half_pass=True).eval()
    frames = [make_image(64, 48, seed=seed) for seed in range(4)]
    model = quantize_from_end_to_end(generator, frames)
    assert set(list_openvino_convolutions(model)) == {"u8"}

    shared = onnx.ModelProto()
    shared.CopyFrom(model)
    (minimum,) = (node for node in shared.graph.node if node.op_type == "Min")
    (dequantize,) = (node for node in shared.graph.node if minimum.output[0] in node.input)
    dequantize.input[0] = minimum.input[0]
    # If this fails, OpenVINO does so by itself, and `_separate_convolutions` can go.
    assert set(list_openvino_convolutions(shared)) != {"u8"}
    for name, version in (("own", model), ("shared", shared)):
        onnx.save(version, tmp_path / f"{name}.onnx")
    own, same = (open_engine(tmp_path / f"{name}.onnx", provider="cpu") for name in ("own", "shared"))
    np.testing.assert_array_equal(own.infer(frames[0][None]), same.infer(frames[0][None]))


def test_values_beyond_the_range_are_clipped_not_wrapped(tmp_path: Path) -> None:
    class Amplifying(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - 128) * 9 + 128

    engine = open_engine(write_engine(Amplifying(), tmp_path / "amplifying.onnx"), provider="cpu")
    frame = np.array([0, 127, 129, 255], np.uint8).reshape(1, 1, 4, 1).repeat(3, axis=3)
    assert engine.infer(frame)[0, 0, :, 0].tolist() == [0, 119, 137, 255]


def test_rounding_is_to_the_nearest(tmp_path: Path) -> None:
    class Shifted(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.6

    engine = open_engine(write_engine(Shifted(), tmp_path / "shifted.onnx"), provider="cpu")
    assert engine.infer(np.full((1, 2, 2, 3), 10, np.uint8)).max() == 11
