"""FP16 and INT8 decided in the ONNX graph, with calibration and per-layer sensitivity."""
