"""Cost of a network: multiply-accumulates per pixel."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime


def count_macs_per_pixel(model: onnx.ModelProto, *, height: int, width: int) -> float:
    """Return the multiply-accumulates of all convolutions and matrix products per pixel, for an input of this size.

    The model runs once, so that any graph can be counted whatever its shapes depend on. Weights that are used several
    times count each time. A pixel is three values of the input: patches of pixels may lie in its channels.
    """
    nodes = [node for node in model.graph.node if node.op_type in {"Conv", "ConvTranspose", "MatMul"}]
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    model_inputs = {value.name for value in model.graph.input}
    names = list(dict.fromkeys(name for node in nodes for name in (node.input[0], node.output[0])))
    names = [name for name in names if name not in model_inputs]
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    frame = np.zeros((1, source.shape[1], height, width), np.float32)
    values = dict(zip(names, session.run(names, {source.name: frame}), strict=True)) | {source.name: frame}
    weight_dims = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    macs = 0
    for node in nodes:
        node_input, node_output = values[node.input[0]], values[node.output[0]]
        if node.op_type == "MatMul":
            macs += node_output.size * node_input.shape[-1]
        else:
            # The whole kernel is applied once for each output pixel; in a transposed convolution, for each input pixel.
            pixels = (node_output if node.op_type == "Conv" else node_input)[0, 0].size
            macs += int(np.prod(weight_dims[node.input[1]])) * pixels
    return macs / (frame.size / 3)
