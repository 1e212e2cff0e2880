"""Builder of ONNX nodes for graphs that are written by hand, with space-to-depth in NHWC."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class NodeBuilder:
    """Collects nodes and constants whose names begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add_node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the name of that output."""
        output = f"{self.prefix}.{op_type.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=f"{output}.node", **attributes))
        return output

    def add_constant(self, values: list[int] | np.float32 | np.uint8 | NDArray[np.float32]) -> str:
        """Add a constant and return its name; a list becomes int64, others keep their type."""
        name = f"{self.prefix}.constant{len(self.constants)}"
        array = np.asarray(values, np.int64) if isinstance(values, list) else np.asarray(values)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def add_space_to_depth(self, frames: str, block_px: int, channels: int) -> str:
        """Add nodes for [N, H, W, C] -> [N, H / B, W / B, B * B * C], blocks of B x B pixels; return the output's name.

        The values of a block are ordered by row, column and channel, as in the bytes of a frame.
        """
        height = self.add_node("Div", self.add_node("Shape", frames, start=1, end=2), self.add_constant([block_px]))
        split_shape = self.add_node(
            "Concat", self.add_constant([0]), height, self.add_constant([block_px, -1, block_px * channels]), axis=0
        )
        blocks = self.add_node("Transpose", self.add_node("Reshape", frames, split_shape), perm=[0, 1, 3, 2, 4])
        return self.add_node("Reshape", blocks, self.add_constant([0, 0, 0, block_px**2 * channels]))

    def add_depth_to_space(self, blocks: str, block_px: int, channels: int) -> str:
        """Add nodes for the inverse of `add_space_to_depth`; return the output's name."""
        split = self.add_node("Reshape", blocks, self.add_constant([0, 0, 0, block_px, block_px * channels]))
        height = self.add_node("Mul", self.add_node("Shape", blocks, start=1, end=2), self.add_constant([block_px]))
        frame_shape = self.add_node("Concat", self.add_constant([0]), height, self.add_constant([-1, channels]), axis=0)
        return self.add_node("Reshape", self.add_node("Transpose", split, perm=[0, 1, 3, 2, 4]), frame_shape)
