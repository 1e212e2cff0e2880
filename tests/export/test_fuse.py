"""Fusing convolutions changes the cost of a graph but not its output, for any graph."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from torch import nn

from export.graph.fuse import fuse_convolutions
from export.graph.macs import count_macs_per_pixel
from export.torch_to_onnx import export_to_onnx
from train.models import create_generator

REDUCED = {
    "edge": {"widths": (8, 16), "blocks": (1, 1)},
    "deblurgan_v2": {"width": 8, "statistics": "trained"},  # those of a frame enlarge every error of random weights
    "mimo_unet": {"width": 8, "blocks": 1},
    "nafnet": {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (1,)},
    "restormer": {"width": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 1},
    "rt_focuser": {"dims": (8, 8, 16, 16, 16), "depths": (1, 1, 1, 1, 1)},
    "resnet_unet": {"size": "18", "width": 8},
    "swin_deblur": {"size": "tiny", "width": 32},
    "two_stage_cnn": {},
}


def run(model: onnx.ModelProto, nchw: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: nchw})[0]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


LARGE = {"deblurgan_v2", "mimo_unet", "restormer", "swin_deblur"}
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in REDUCED]


@pytest.mark.parametrize("name", NAMES)
def test_every_generator_computes_the_same_after_fusing(name: str) -> None:
    torch.manual_seed(0)
    generator = create_generator(name, **REDUCED[name])
    for layer in generator.modules():  # as after training, the statistics are not 0 and 1
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5), nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2), nn.init.uniform_(layer.bias, -0.5, 0.5)
    core = export_to_onnx(generator)
    after = fuse_convolutions(core)
    step, channels = generator.multiple_of // generator.patch_px, 3 * generator.patch_px**2
    for height, width in ((step, step), (2 * step, step)):
        nchw = np.random.default_rng(0).random((1, channels, height, width), dtype=np.float32)
        assert np.abs(run(core, nchw) - run(after, nchw)).max() < 1e-5
    assert len(after.graph.node) <= len(core.graph.node)


def test_two_stage_cnn_falls_from_367296_to_271040_macs_per_pixel() -> None:
    core = export_to_onnx(create_generator("two_stage_cnn"))
    after = fuse_convolutions(core)
    assert count_macs_per_pixel(core, height=16, width=24) == 367_296
    assert count_macs_per_pixel(after, height=16, width=24) == 271_040
    assert (kinds(core)["Conv"], kinds(after)["Conv"]) == (22, 11)
    # Weights that are still shared are stored once.
    shared = Counter(node.input[1] for node in after.graph.node if node.op_type == "Conv")
    assert len(after.graph.initializer) == 2 * len(shared)


class GraphBuilder:
    """Builder of graphs of convolutions and other operators on an input of three channels."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, *shape: int, low: float = -1.0) -> str:
        name = f"c{len(self.constants)}"
        values = self.rng.uniform(low, 1, shape).astype(np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def conv(
        self, source: str, inputs: int, outputs: int, size: int, *, bias: bool = True, **attributes: object
    ) -> str:
        names = [source, self.constant(outputs, inputs, size, size)] + ([self.constant(outputs)] if bias else [])
        return self.node("Conv", *names, **{"pads": [size // 2] * 4} | attributes)

    def norm(self, source: str, channels: int) -> str:
        inputs = [self.constant(channels), self.constant(channels), self.constant(channels)]
        return self.node("BatchNormalization", source, *inputs, self.constant(channels, low=0.5))

    def model(self, *outputs: str) -> onnx.ModelProto:
        def value(name: str, channels: object) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, "h", "w"])

        proto = helper.make_graph(
            self.nodes, "graph", [value("x", 3)], [value(name, None) for name in outputs], self.constants
        )
        return helper.make_model(proto, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def check(model: onnx.ModelProto, **expected: int) -> None:
    after = fuse_convolutions(model)
    nchw = np.random.default_rng(1).random((2, 3, 7, 9), dtype=np.float32)
    assert run(model, nchw) == pytest.approx(run(after, nchw), abs=1e-3, rel=1e-4)
    assert {kind: kinds(after)[kind] for kind in expected} == expected


def test_normalisation_goes_into_the_convolution_before_it() -> None:
    graph = GraphBuilder()
    check(graph.model(graph.norm(graph.conv("x", 3, 4, 3, bias=False), 4)), Conv=1, BatchNormalization=0)


def test_scales_and_shifts_of_channels_go_into_a_convolution() -> None:
    graph = GraphBuilder()
    value = graph.node("Mul", graph.conv("x", 3, 4, 3), graph.constant(1, 4, 1, 1))
    value = graph.node("Relu", graph.node("Add", graph.constant(4, 1, 1), value))
    for part in (graph.node("Mul", value, graph.constant(4, 1, 1)), graph.norm(value, 4)):
        value = graph.node("Relu", graph.conv(graph.node("Add", part, graph.constant(1)), 4, 4, 1))
    check(graph.model(value), Conv=3, Mul=0, Add=0, BatchNormalization=0)


def test_scales_that_no_convolution_can_take_stay() -> None:
    """Before a padded convolution, of every pixel, of a tensor that something else reads, and to more channels."""
    graph = GraphBuilder()
    shifted = graph.node("Add", graph.node("Relu", "x"), graph.constant(3, 1, 1))
    check(graph.model(graph.conv(shifted, 3, 4, 3)), Add=1)
    graph = GraphBuilder()
    check(graph.model(graph.node("Mul", graph.conv("x", 3, 4, 3), graph.constant(1, 4, 7, 9))), Mul=1)
    graph = GraphBuilder()
    tapped = graph.node("Mul", graph.node("Relu", "x"), graph.constant(3, 1, 1))
    check(graph.model(graph.node("Concat", graph.conv(tapped, 3, 4, 1), tapped, axis=1)), Mul=1)
    graph = GraphBuilder()
    check(graph.model(graph.node("Mul", graph.conv("x", 3, 1, 3), graph.constant(4, 1, 1))), Mul=1)


def test_pointwise_convolution_goes_into_the_one_before_if_that_is_cheaper() -> None:
    graph = GraphBuilder()
    check(graph.model(graph.conv(graph.conv("x", 3, 16, 3, strides=[2, 2]), 16, 4, 1)), Conv=1)
    graph = GraphBuilder()
    check(graph.model(graph.conv(graph.conv("x", 3, 4, 3), 4, 64, 1)), Conv=2)


def test_pointwise_convolutions_in_a_row_become_one() -> None:
    graph = GraphBuilder()
    value = "x"
    for inputs, outputs in ((3, 8), (8, 8), (8, 3)):
        value = graph.conv(value, inputs, outputs, 1)
    check(graph.model(value), Conv=1)


def test_convolution_with_another_consumer_stays() -> None:
    graph = GraphBuilder()
    middle = graph.conv("x", 3, 8, 3)
    last = graph.conv(middle, 8, 3, 1)
    check(graph.model(graph.node("Concat", middle, last, axis=1)), Conv=2)
    graph = GraphBuilder()
    middle = graph.conv("x", 3, 8, 3)
    check(graph.model(graph.conv(middle, 8, 3, 1), middle), Conv=2)


def test_convolutions_around_a_non_linearity_stay() -> None:
    graph = GraphBuilder()
    check(graph.model(graph.conv(graph.node("Relu", graph.conv("x", 3, 16, 3)), 16, 3, 1)), Conv=2)


def test_pointwise_convolution_before_a_larger_one_stays_because_of_the_border() -> None:
    graph = GraphBuilder()
    check(graph.model(graph.conv(graph.conv("x", 3, 16, 1), 16, 3, 3)), Conv=2)


def test_pointwise_convolution_with_stride_or_padding_or_groups_stays() -> None:
    for attributes in ({"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}):
        graph = GraphBuilder()
        check(graph.model(graph.conv(graph.conv("x", 3, 16, 3), 16, 3, 1, **attributes)), Conv=2)
    graph = GraphBuilder()
    grouped = graph.node("Conv", graph.conv("x", 3, 16, 3), graph.constant(4, 4, 1, 1), group=4)
    check(graph.model(grouped), Conv=2)


def test_siblings_that_are_only_concatenated_become_one() -> None:
    graph = GraphBuilder()
    siblings = [graph.conv("x", 3, outputs, 3) for outputs in (2, 5, 1)]
    check(graph.model(graph.node("Concat", *siblings, axis=1)), Conv=1, Concat=0)


def test_other_inputs_of_a_concatenation_keep_their_positions() -> None:
    graph = GraphBuilder()
    siblings = [graph.conv("x", 3, 2, 3), graph.conv("x", 3, 2, 3)]
    other, small = graph.conv("x", 3, 4, 3, dilations=[2, 2], pads=[2] * 4), graph.conv("x", 3, 2, 1)
    check(graph.model(graph.node("Concat", "x", *siblings, other, small, "x", axis=1)), Conv=3, Concat=1)
    graph = GraphBuilder()
    twice = graph.conv("x", 3, 2, 3)
    check(graph.model(graph.node("Concat", twice, twice, axis=1)), Conv=1, Concat=1)


def test_shared_weights_stay_the_same_if_one_of_their_convolutions_changes() -> None:
    graph = GraphBuilder()
    kernel, bias = graph.constant(8, 3, 3, 3), graph.constant(8)
    one, other = (graph.node("Conv", "x", kernel, bias, pads=[1] * 4) for _ in range(2))
    merged = graph.conv(one, 8, 8, 1)
    check(graph.model(graph.node("Concat", merged, graph.node("Relu", other), axis=1)), Conv=2)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["conv1", "conv3", "norm", "Relu", "family", "tap", "Mul", "Add"]),
            st.integers(1, 12),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_graph_computes_the_same_after_fusing(steps: list[tuple[str, int, bool]]) -> None:
    graph = GraphBuilder()
    value, channels, taps = "x", 3, []
    for kind, outputs, bias in steps:
        if kind.startswith("conv"):
            value, channels = graph.conv(value, channels, outputs, int(kind[-1]), bias=bias), outputs
        elif kind == "norm":
            value = graph.norm(value, channels)
        elif kind == "family":
            siblings = [graph.conv(value, channels, outputs, 3, bias=bias) for _ in range(3)]
            value, channels = graph.node("Concat", *siblings, axis=1), 3 * outputs
        elif kind in {"Mul", "Add"}:
            value = graph.node(kind, value, graph.constant(channels if bias else 1, 1, 1))
        elif kind == "tap":
            taps.append(value)
        else:
            value = graph.node(kind, value)
    value = graph.node("Concat", graph.node("Identity", value), *taps, axis=1)
    model = graph.model(value)
    nchw = np.random.default_rng(1).random((1, 3, 6, 5), dtype=np.float32)
    before, after = run(model, nchw), run(fuse_convolutions(model), nchw)
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max() + 1e-5
