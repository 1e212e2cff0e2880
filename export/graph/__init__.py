"""Exact rewriting of ONNX graphs; knows neither torch nor the networks of `train`."""
