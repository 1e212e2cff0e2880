"""An engine does what the network does: every size, every order and range of pixels."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
import torch

from export.graph.channel_order import in_bgr
from export.graph.depth_to_space import in_runs
from export.graph.fuse import collapsed
from export.graph.pixel_interface import with_pixel_interface
from export.quantization.calibration import planes, ranges
from export.quantization.precision import convolutions, int8, prepared
from export.torch_to_onnx import onnx_from_generator, view_of
from runtime.engines import open_engine
from runtime.metrics import psnr_db
from runtime.spec import EngineSpec
from tests.conftest import picture
from train.models import Generator, create_generator, restore


class Signed(Generator):
    """Sees RGB in [-1, 1] and treats the channels differently, so that a swap would show."""

    channel_order: ClassVar = "RGB"
    pixel_range: ClassVar = (-1.0, 1.0)
    multiple_of: ClassVar = 3

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x + 0.3 * self.mix(x) * torch.tensor([1.0, -0.5, 0.1]).view(1, 3, 1, 1))


class Plain(Signed):
    channel_order: ClassVar = "BGR"
    pixel_range: ClassVar = (0.0, 255.0)
    multiple_of: ClassVar = 1


def lively_edge() -> Generator:
    """An untrained edge network whose residual is large enough to matter."""
    generator = create_generator("edge", widths=(8, 16), blocks=(1, 1))
    with torch.no_grad():
        generator.tail.weight.mul_(8)
    return generator


def wrapped(generator: Generator, path: Path) -> Path:
    core = onnx_from_generator(generator)
    model = with_pixel_interface(
        in_bgr(core) if generator.channel_order == "RGB" else core,
        view_of(generator),
        spec=EngineSpec(name="wrapped", precision="fp32"),
    )
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("make", [lively_edge, Signed, Plain], ids=["edge", "rgb signed", "bgr 255"])
def test_engine_agrees_with_the_network(make: type[Generator], tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = make().eval()
    engine = open_engine(wrapped(generator, tmp_path / "a.onnx"), provider="cpu")
    batch = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 22, 31, 3), dtype=np.uint8), 3, axis=0)
    for frames in (batch, batch[:1, :1, :1], batch[:, :5, :17]):
        assert (
            np.abs(engine.infer(frames).astype(int) - restore(generator, torch.from_numpy(frames)).numpy()).max() <= 1
        )
    assert np.abs(restore(generator, torch.from_numpy(batch)).numpy().astype(int) - batch).mean() > 1


def test_an_engine_that_moves_bytes_agrees_too(tmp_path: Path) -> None:
    """Quantised from end to end, at sizes with and without padding."""
    torch.manual_seed(0)
    generator = lively_edge().eval()
    view, core = view_of(generator), prepared(collapsed(onnx_from_generator(generator)))
    frames = [picture(64, 48, seed=seed) for seed in range(4)]
    floats = with_pixel_interface(core, view, spec=EngineSpec(name="floats"))
    found = ranges(core, planes(floats, core.graph.input[0].name, frames), "minmax")
    names = convolutions(core, whole=True)
    quantised = int8(in_runs(core), found, "int8_cpu", quantised=names, pixel_range=view.pixel_range)
    model = with_pixel_interface(quantised, view, spec=EngineSpec(name="bytes", precision="int8_cpu"), in_bytes=True)
    assert "Cast" not in {node.op_type for node in model.graph.node}  # no frame is ever a float of its own
    onnx.save(model, tmp_path / "bytes.onnx")
    engine = open_engine(tmp_path / "bytes.onnx", provider="cpu")
    for frame in (frames[0], frames[1][:45, :61], frames[2][:1, :1]):
        expected = restore(generator, torch.from_numpy(frame[None])).numpy()
        assert psnr_db(engine.infer(frame[None])[0], expected[0]) > 40
        assert psnr_db(expected[0], frame) < 35  # so that agreement says something


def test_values_beyond_the_range_are_clipped_not_wrapped(tmp_path: Path) -> None:
    class Loud(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x - 128) * 9 + 128

    engine = open_engine(wrapped(Loud(), tmp_path / "loud.onnx"), provider="cpu")
    frame = np.array([0, 127, 129, 255], np.uint8).reshape(1, 1, 4, 1).repeat(3, axis=3)
    assert engine.infer(frame)[0, 0, :, 0].tolist() == [0, 119, 137, 255]


def test_rounding_is_to_the_nearest(tmp_path: Path) -> None:
    class Shifted(Plain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 0.6

    engine = open_engine(wrapped(Shifted(), tmp_path / "shifted.onnx"), provider="cpu")
    assert engine.infer(np.full((1, 2, 2, 3), 10, np.uint8)).max() == 11
