"""Cost of a network: multiply-accumulates per pixel."""

from __future__ import annotations

import math

import numpy as np
import onnx

from export.graph.measure import measure_shapes


def count_macs_per_pixel(model: onnx.ModelProto, *, height: int, width: int) -> float:
    """Return the multiply-accumulates of all convolutions and matrix products per pixel, for an input of this size.

    The model runs once, so that any graph can be counted whatever its shapes depend on. Weights that are used several
    times count each time. A pixel is three values of the input: patches of pixels may lie in its channels.
    """
    nodes = [node for node in model.graph.node if node.op_type in {"Conv", "ConvTranspose", "MatMul"}]
    names = list(dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0])))
    frame = np.zeros((1, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value, height, width), np.float32)
    shapes = measure_shapes(model, names, frame)
    weight_dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    macs = 0
    for node in nodes:
        node_input, node_output = shapes[node.input[0]], shapes[node.output[0]]
        if node.op_type == "MatMul":
            macs += math.prod(node_output) * node_input[-1]
        else:
            # The whole kernel is applied once for each output pixel; in a transposed convolution, for each input pixel.
            pixels = math.prod((node_output if node.op_type == "Conv" else node_input)[2:])
            macs += math.prod(weight_dims[node.input[1]]) * pixels
    return macs / (frame.size / 3)
