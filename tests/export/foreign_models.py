"""Foreign ONNX files of many kinds around one small network, which sharpens rows: red most, green less, blue not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_GAINS = (0.6, 0.25, 0.0)
"""Sharpening of red, green and blue."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The properties of a foreign file."""

    layout: str = "NCHW"
    order: str = "rgb"
    range: str = "0..1"
    size: tuple[int, int] | None = None
    data_type: int = TensorProto.FLOAT
    opset: int = 18
    returns: str = "image"
    """`image`, or the `residual` that is to be added to it."""
    outputs: int = 1
    multiple: int = 1
    batch: int | str = 1
    mean: tuple[float, ...] = (0.0,)
    """Mean of the images that the network takes: (x - mean) / std for x in 0..1. With `returns_normalised`, its result
    is in the same range."""
    std: tuple[float, ...] = (1.0,)
    returns_normalised: bool = True
    is_strict: bool = False
    """Whether images in another range than the network's own are not restored, as by a trained network with biases."""


def write_pairs(folder: Path, count: int = 4) -> Path:
    """Write pairs whose red is blurred along rows by 5 pixels, green by 3, and blue not."""
    for index in range(count):
        noise = np.random.default_rng(index).normal(0, 120, (64, 96, 3))
        sharp = (cv2.GaussianBlur(noise, (0, 0), 1.2) + 127).clip(0, 255).astype(np.uint8)
        blurred = sharp.copy()
        for channel, length in ((2, 5), (1, 3)):
            blurred[..., channel] = cv2.blur(sharp[..., channel], (length, 1))
        for kind, image in (("sharp", sharp), ("blur", blurred)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{index}.png"), image)
    return folder


def make_model(kind: Kind) -> onnx.ModelProto:
    """Return a model of the network, with weights that fit its range and channels."""
    builder = _Builder(kind)
    result = builder.add_network()
    outputs = [builder.add_output(result, "restored")]
    if kind.outputs == 2:
        small = builder.add("AveragePool", result, kernel_shape=[2, 2], strides=[2, 2])
        outputs.insert(0, builder.add_output(small, "small", halved=True))
    graph = helper.make_graph(builder.nodes, "foreign", [builder.image], outputs, builder.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", kind.opset)])
    model.ir_version = 6 if kind.opset < 13 else 10
    onnx.checker.check_model(model)
    return model


class _Builder:
    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.float = TensorProto.FLOAT16 if kind.data_type == TensorProto.FLOAT16 else TensorProto.FLOAT
        self.channels = 1 if kind.order == "gray" else 3
        self.image = helper.make_tensor_value_info("image", kind.data_type, self.shape())

    def shape(self, *, halved: bool = False) -> list[int | str]:
        width, height = self.kind.size or ("w", "h")
        if halved:
            height, width = "h2", "w2"
        inner = [self.channels, height, width] if self.kind.layout == "NCHW" else [height, width, self.channels]
        return [self.kind.batch, *inner]

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))  # without names, as allowed
        return name

    def constant(self, values: object) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(values)
        if array.dtype.kind == "f":
            array = array.astype(helper.tensor_dtype_to_np_dtype(self.float))
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add_network(self) -> str:
        kind = self.kind
        values = "image"
        if kind.layout == "NHWC":
            values = self.add("Transpose", values, perm=[0, 3, 1, 2])
        if kind.data_type == TensorProto.UINT8:
            values = self.add("Cast", values, to=TensorProto.FLOAT)
        if kind.range == "0..255":
            values = self.add("Div", values, self.constant(255.0))
        elif kind.range == "-1..1":
            values = self.add("Div", self.add("Add", values, self.constant(1.0)), self.constant(2.0))
        mean, std = (self.constant(np.reshape(part, (1, -1, 1, 1))) for part in (kind.mean, kind.std))
        values = self.add("Add", self.add("Mul", values, std), mean)  # nodes without effect, for most kinds
        residual = self._add_residual(values)
        if kind.is_strict:
            residual = self.add("Add", residual, self._add_error(values))
        if kind.returns == "residual":
            return residual if kind.range == "0..1" else self.add("Mul", residual, self.constant(255.0))
        result = self.add("Add", values, residual)
        result = self.add("Clip", result, self.constant(0.0), self.constant(1.0))
        if kind.returns_normalised:
            result = self.add("Div", self.add("Sub", result, mean), std)
        if kind.range == "0..255":
            result = self.add("Mul", result, self.constant(255.0))
        elif kind.range == "-1..1":
            result = self.add("Sub", self.add("Mul", result, self.constant(2.0)), self.constant(1.0))
        return result

    def _add_error(self, values: str) -> str:
        """Add the nodes of an error that is 0 only for images that reach from about 0 to about 1."""
        low, high = (self.add(f"Reduce{end}", values, axes=[2, 3]) for end in ("Min", "Max"))
        centre = self.add("Abs", self.add("Sub", self.add("Add", low, high), self.constant(1.0)))
        span = self.add("Sub", high, low)
        errors = [
            self.add("Sub", centre, self.constant(0.2)),
            self.add("Sub", self.constant(0.45), span),
            self.add("Sub", span, self.constant(1.02)),
        ]
        return self.add("Relu", self.add("Max", *errors))

    def _add_residual(self, values: str) -> str:
        gains = {"rgb": _GAINS, "bgr": _GAINS[::-1], "gray": (0.3,)}[self.kind.order]
        count = len(gains)
        first = np.zeros((2 * count, count, 1, 3))
        last = np.zeros((count, 2 * count, 1, 1))
        for channel, gain in enumerate(gains):
            first[2 * channel, channel, 0] = -0.5, 1.0, -0.5
            first[2 * channel + 1] = -first[2 * channel]
            last[channel, 2 * channel : 2 * channel + 2, 0, 0] = gain, -gain
        if self.kind.multiple > 1:
            side = self.kind.multiple
            values = self.add("SpaceToDepth", values, blocksize=side)  # refuses other sizes
            values = self.add("DepthToSpace", values, blocksize=side)
        padded = self.add("Pad", values, self.constant([0, 0, 0, 1, 0, 0, 0, 1]), mode="edge")
        hidden = self.add("Relu", self.add("Conv", padded, self.constant(first), kernel_shape=[1, 3]))
        same = self.constant(np.eye(2 * count)[:, :, None, None])
        hidden = self.add("Relu", self.add("Conv", hidden, same))
        return self.add("Conv", hidden, self.constant(last))

    def add_output(self, result: str, name: str, *, halved: bool = False) -> onnx.ValueInfoProto:
        if self.kind.layout == "NHWC":
            result = self.add("Transpose", result, perm=[0, 2, 3, 1])
        if self.kind.data_type == TensorProto.UINT8:
            result = self.add("Cast", result, to=TensorProto.UINT8)
        self.nodes.append(helper.make_node("Identity", [result], [name]))
        return helper.make_tensor_value_info(name, self.kind.data_type, self.shape(halved=halved))
