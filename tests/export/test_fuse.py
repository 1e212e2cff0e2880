"""Collapsing changes how an answer is computed, never the answer; and it does so in any graph."""

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

from export.graph.fuse import collapsed, macs_per_pixel
from export.torch_to_onnx import onnx_from_generator
from train.models import create_generator

REDUCED = {
    "edge": {"widths": (8, 16), "blocks": (1, 1)},
    "resnet_unet": {"size": "18", "width": 8},
    "swin_deblur": {"size": "tiny", "width": 32},
    "two_stage_cnn": {},
}


def run(model: onnx.ModelProto, picture: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: picture})[0]


def kinds(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("name", REDUCED)
def test_every_generator_computes_the_same_after_it(name: str) -> None:
    torch.manual_seed(0)
    generator = create_generator(name, **REDUCED[name])
    for layer in generator.modules():  # as after training: statistics that are not 0 and 1
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5), nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2), nn.init.uniform_(layer.bias, -0.5, 0.5)
    core = onnx_from_generator(generator)
    after = collapsed(core)
    step, channels = generator.multiple_of // generator.patch_px, 3 * generator.patch_px**2
    for height, width in ((step, step), (2 * step, step)):
        picture = np.random.default_rng(0).random((1, channels, height, width), dtype=np.float32)
        assert np.abs(run(core, picture) - run(after, picture)).max() < 1e-5
    assert len(after.graph.node) <= len(core.graph.node)


def test_two_stage_cnn_falls_from_367296_to_271040_macs_per_pixel() -> None:
    core = onnx_from_generator(create_generator("two_stage_cnn"))
    after = collapsed(core)
    assert macs_per_pixel(core, height=16, width=24) == 367_296
    assert macs_per_pixel(after, height=16, width=24) == 271_040
    assert (kinds(core)["Conv"], kinds(after)["Conv"]) == (22, 11)
    # Weights that are still shared are stored once.
    shared = Counter(node.input[1] for node in after.graph.node if node.op_type == "Conv")
    assert len(after.graph.initializer) == 2 * len(shared)


class Chain:
    """A graph of convolutions and what lies between them, on three channels."""

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

    def conv(self, source: str, taken: int, made: int, size: int, *, bias: bool = True, **attributes: object) -> str:
        inputs = [source, self.constant(made, taken, size, size)] + ([self.constant(made)] if bias else [])
        return self.node("Conv", *inputs, **{"pads": [size // 2] * 4} | attributes)

    def norm(self, source: str, channels: int) -> str:
        inputs = [self.constant(channels), self.constant(channels), self.constant(channels)]
        return self.node("BatchNormalization", source, *inputs, self.constant(channels, low=0.5))

    def model(self, *outputs: str) -> onnx.ModelProto:
        def value(name: str, channels: object) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", channels, "h", "w"])

        graph = helper.make_graph(
            self.nodes, "chain", [value("x", 3)], [value(name, None) for name in outputs], self.constants
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def check(model: onnx.ModelProto, **expected: int) -> None:
    after = collapsed(model)
    picture = np.random.default_rng(1).random((2, 3, 7, 9), dtype=np.float32)
    assert run(model, picture) == pytest.approx(run(after, picture), abs=1e-3, rel=1e-4)
    assert {kind: kinds(after)[kind] for kind in expected} == expected


def test_normalisation_goes_into_the_convolution_before_it() -> None:
    chain = Chain()
    check(chain.model(chain.norm(chain.conv("x", 3, 4, 3, bias=False), 4)), Conv=1, BatchNormalization=0)


def test_pointwise_convolution_goes_into_the_one_before_where_that_is_cheaper() -> None:
    chain = Chain()
    check(chain.model(chain.conv(chain.conv("x", 3, 16, 3, strides=[2, 2]), 16, 4, 1)), Conv=1)
    chain = Chain()
    check(chain.model(chain.conv(chain.conv("x", 3, 4, 3), 4, 64, 1)), Conv=2)


def test_pointwise_convolutions_in_a_row_become_one() -> None:
    chain = Chain()
    value = "x"
    for taken, made in ((3, 8), (8, 8), (8, 3)):
        value = chain.conv(value, taken, made, 1)
    check(chain.model(value), Conv=1)


def test_what_is_used_elsewhere_is_left() -> None:
    chain = Chain()
    middle = chain.conv("x", 3, 8, 3)
    last = chain.conv(middle, 8, 3, 1)
    check(chain.model(chain.node("Concat", middle, last, axis=1)), Conv=2)
    chain = Chain()
    middle = chain.conv("x", 3, 8, 3)
    check(chain.model(chain.conv(middle, 8, 3, 1), middle), Conv=2)


def test_what_is_not_linear_is_left() -> None:
    chain = Chain()
    check(chain.model(chain.conv(chain.node("Relu", chain.conv("x", 3, 16, 3)), 16, 3, 1)), Conv=2)


def test_pointwise_convolution_before_a_larger_one_is_left_for_the_borders_sake() -> None:
    chain = Chain()
    check(chain.model(chain.conv(chain.conv("x", 3, 16, 1), 16, 3, 3)), Conv=2)


def test_pointwise_convolution_with_stride_or_padding_or_groups_is_left() -> None:
    for attributes in ({"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}):
        chain = Chain()
        check(chain.model(chain.conv(chain.conv("x", 3, 16, 3), 16, 3, 1, **attributes)), Conv=2)
    chain = Chain()
    grouped = chain.node("Conv", chain.conv("x", 3, 16, 3), chain.constant(4, 4, 1, 1), group=4)
    check(chain.model(grouped), Conv=2)


def test_siblings_that_are_only_concatenated_become_one() -> None:
    chain = Chain()
    family = [chain.conv("x", 3, made, 3) for made in (2, 5, 1)]
    check(chain.model(chain.node("Concat", *family, axis=1)), Conv=1, Concat=0)


def test_strangers_in_a_concatenation_keep_their_places() -> None:
    chain = Chain()
    family = [chain.conv("x", 3, 2, 3), chain.conv("x", 3, 2, 3)]
    other, small = chain.conv("x", 3, 4, 3, dilations=[2, 2], pads=[2] * 4), chain.conv("x", 3, 2, 1)
    check(chain.model(chain.node("Concat", "x", *family, other, small, "x", axis=1)), Conv=3, Concat=1)
    chain = Chain()
    twice = chain.conv("x", 3, 2, 3)
    check(chain.model(chain.node("Concat", twice, twice, axis=1)), Conv=1, Concat=1)


def test_tied_weights_stay_what_they_are_where_one_of_their_users_changes() -> None:
    chain = Chain()
    kernel, bias = chain.constant(8, 3, 3, 3), chain.constant(8)
    one, other = (chain.node("Conv", "x", kernel, bias, pads=[1] * 4) for _ in range(2))
    merged = chain.conv(one, 8, 8, 1)
    check(chain.model(chain.node("Concat", merged, chain.node("Relu", other), axis=1)), Conv=2)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["conv1", "conv3", "norm", "Relu", "family", "tap"]),
            st.integers(1, 12),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_chain_computes_the_same_after_it(steps: list[tuple[str, int, bool]]) -> None:
    chain = Chain()
    value, channels, taps = "x", 3, []
    for kind, made, bias in steps:
        if kind.startswith("conv"):
            value, channels = chain.conv(value, channels, made, int(kind[-1]), bias=bias), made
        elif kind == "norm":
            value = chain.norm(value, channels)
        elif kind == "family":
            family = [chain.conv(value, channels, made, 3, bias=bias) for _ in range(3)]
            value, channels = chain.node("Concat", *family, axis=1), 3 * made
        elif kind == "tap":
            taps.append(value)
        else:
            value = chain.node(kind, value)
    value = chain.node("Concat", chain.node("Identity", value), *taps, axis=1)
    model = chain.model(value)
    picture = np.random.default_rng(1).random((1, 3, 6, 5), dtype=np.float32)
    before, after = run(model, picture), run(collapsed(model), picture)
    assert np.abs(before - after).max() <= 1e-4 * np.abs(before).max() + 1e-5
