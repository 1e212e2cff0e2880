"""Nodes for graphs that are written by hand, and the moves of pixels between squares and rows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Nodes:
    """Collects nodes and constants, under names that begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node with one output; returns the output's name."""
        output = f"{self.prefix}.{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"{output}.node", **attributes))
        return output

    def constant(self, values: list[int] | np.float32 | np.uint8) -> str:
        name = f"{self.prefix}.constant{len(self.constants)}"
        array = np.asarray(values, np.int64) if isinstance(values, list) else np.asarray(values)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def squares(self, rows: str, side: int, channels: int) -> str:
        """[N, H, W, C] -> [N, H / S, W / S, S S C]: the pixels of a square beside each other, row by row."""
        places = self.node("Div", self.node("Shape", rows, start=1, end=2), self.constant([side]))
        shape = self.node("Concat", self.constant([0]), places, self.constant([side, -1, side * channels]), axis=0)
        moved = self.node("Transpose", self.node("Reshape", rows, shape), perm=[0, 1, 3, 2, 4])
        return self.node("Reshape", moved, self.constant([0, 0, 0, side**2 * channels]))

    def rows(self, squares: str, side: int, channels: int) -> str:
        """The inverse of `squares`."""
        split = self.node("Reshape", squares, self.constant([0, 0, 0, side, side * channels]))
        height = self.node("Mul", self.node("Shape", squares, start=1, end=2), self.constant([side]))
        shape = self.node("Concat", self.constant([0]), height, self.constant([-1, channels]), axis=0)
        return self.node("Reshape", self.node("Transpose", split, perm=[0, 1, 3, 2, 4]), shape)
