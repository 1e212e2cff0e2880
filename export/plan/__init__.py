"""TensorRT and TensorRT-RTX plans from ONNX engines. Needs the runtime and the builder, neither torch nor onnx."""
