"""Cores and engines for 4:2:0 frames against the network in PyTorch, and against libswscale's colours."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from export.graph import yuv420 as module
from export.graph.channel_order import to_bgr_order
from export.graph.fuse import fuse_convolutions
from export.graph.pixel_interface import View
from export.graph.yuv420 import to_yuv420
from export.graph.yuv420_interface import add_yuv420_interface
from export.planes import restore_planes
from export.torch_to_onnx import export_to_onnx, get_view
from runtime.colour import BT709
from runtime.spec import EngineSpec
from runtime.yuv420 import Yuv420
from tests.conftest import make_image
from tests.export.test_fuse import REDUCED
from train.models import Generator, create_generator

BARS = [(red, green, blue) for red in (16, 235) for green in (16, 235) for blue in (16, 235)]
"""Colours of bars, full-range RGB within limits that no conversion clips."""


def make_generator(name: str) -> Generator:
    torch.manual_seed(0)
    name, *changes = name.split()
    options = {"yuv420": {"colour": "yuv420"}, "half_pass": {"half_pass": True}}
    return create_generator(
        name, **{key: value for change in changes for key, value in options[change].items()}, **REDUCED[name]
    ).eval()


def make_planes(width: int, height: int, seed: int = 0) -> np.ndarray:
    return Yuv420.from_bgr(make_image(width, height, seed), BT709).planes


def run(model: onnx.ModelProto, planes: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: planes[np.newaxis]})[0][0]


def make_engine(core: onnx.ModelProto, view: View) -> onnx.ModelProto:
    planes_core, planes_view = to_yuv420(core, view)
    return add_yuv420_interface(planes_core, planes_view, spec=EngineSpec(name="test"))


@pytest.mark.parametrize(
    "name", ["edge", "edge yuv420", "edge half_pass", "edge half_pass yuv420", "two_stage_cnn", "resnet_unet"]
)
def test_planes_give_what_the_network_gives_for_their_colours(name: str) -> None:
    generator = make_generator(name)
    core = fuse_convolutions(export_to_onnx(generator))
    core = to_bgr_order(core) if generator.channel_order == "RGB" else core
    side = max(16, generator.multiple_of)
    planes = make_planes(2 * side, side)
    engine = make_engine(core, get_view(generator))
    read = {source for node in engine.graph.node for source in node.input}
    assert {tensor.name for tensor in engine.graph.initializer} <= read  # ONNX Runtime warns of others
    result = run(engine, planes)
    expected = restore_planes(generator, planes)
    assert np.abs(result.astype(int) - expected).max() <= 1
    assert (result != expected).mean() < 0.01
    assert (result != planes).mean() > 0.1  # the network does something


@pytest.mark.parametrize(("width", "height"), [(64, 48), (70, 50), (2, 2)])
def test_folded_and_added_conversions_are_equal(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = make_generator("edge")
    core = fuse_convolutions(export_to_onnx(generator))
    planes = make_planes(width, height)
    assert to_yuv420(core, get_view(generator))[1].ring == 1
    folded = run(make_engine(core, get_view(generator)), planes)
    monkeypatch.setattr(module, "_find_ends", lambda graph: None)
    added_core, view = to_yuv420(core, get_view(generator))
    assert view.ring == 0
    assert len(added_core.graph.node) > len(core.graph.node)
    added = run(make_engine(core, get_view(generator)), planes)
    assert folded.shape == planes.shape
    assert np.abs(folded.astype(int) - added).max() <= 1


def test_a_pass_at_half_resolution_needs_no_conversions() -> None:
    generator = make_generator("edge half_pass")
    core = fuse_convolutions(export_to_onnx(generator))
    planes_core, view = to_yuv420(core, get_view(generator))
    assert view.ring == 1
    assert len(planes_core.graph.node) == len(core.graph.node) + 1  # the frame without its ring


def test_a_network_for_420_has_no_nodes_for_colours_in_an_engine_for_planes() -> None:
    cores = [fuse_convolutions(export_to_onnx(make_generator(name))) for name in ("edge", "edge yuv420")]
    views = [to_yuv420(core, View((0.0, 1.0), 8, 4)) for core in cores]
    assert len(cores[1].graph.node) == len(cores[0].graph.node) + 2
    assert views[0][1] == views[1][1]
    assert [[node.op_type for node in core.graph.node] for core, _ in views[:1]] == [
        [node.op_type for node in core.graph.node] for core, _ in views[1:]
    ]


def make_scaling_core(scale: float) -> onnx.ModelProto:
    """Return a core that multiplies BGR by a number."""
    shape = ("n", 3, "h", "w")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        "scale",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("scale", TensorProto.FLOAT, [], [scale])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def make_bars() -> np.ndarray:
    """Return bars of 8 columns, uint8[16, W, 3] BGR."""
    bars = np.repeat(np.array(BARS, np.uint8)[:, ::-1], 8, axis=0)[np.newaxis].repeat(16, axis=0)
    return np.ascontiguousarray(bars)


@pytest.mark.parametrize("pixel_range", [(0.0, 1.0), (-1.0, 1.0)])
def test_a_network_that_gives_one_colour_gives_it_for_every_colour(pixel_range: tuple[float, float]) -> None:
    """The core gives 0 for all inputs, which is black or the gray in the middle of the range."""
    luma = 16 + 219 * -pixel_range[0] / (pixel_range[1] - pixel_range[0])
    engine = make_engine(make_scaling_core(0.0), View(pixel_range, 1))
    result = Yuv420(run(engine, Yuv420.from_bgr(make_bars(), BT709).planes), BT709)
    assert np.abs(result.luma - luma).max() <= 0.5
    assert np.abs(result.chroma - 128.0).max() == 0


def test_halved_colours_are_those_of_libswscale() -> None:
    bars = make_bars()
    engine = make_engine(make_scaling_core(0.5), View((0.0, 1.0), 1))
    result = Yuv420(run(engine, Yuv420.from_bgr(bars, BT709).planes), BT709)
    expected = Yuv420.from_bgr(np.rint(bars / 2).astype(np.uint8), BT709)
    inner = np.arange(bars.shape[1]).reshape(-1, 8)[:, 2:6].ravel()  # chroma at the edges of bars is of two colours
    assert np.abs(result.luma[:, inner].astype(int) - expected.luma[:, inner]).max() <= 1
    halves = inner[::2] // 2
    assert np.abs(result.chroma[:, :, halves].astype(int) - expected.chroma[:, :, halves]).max() <= 1


def test_what_the_network_does_not_change_stays_as_decoded() -> None:
    """All codes, also those that no BGR has, and of every meaning."""
    generator = make_generator("edge")
    with torch.no_grad():
        generator.tail.weight.zero_()
        generator.tail.bias.zero_()
    planes = np.random.default_rng(0).integers(0, 256, (75, 34), dtype=np.uint8)
    core = fuse_convolutions(export_to_onnx(generator))
    assert np.array_equal(run(make_engine(core, get_view(generator)), planes), planes)
