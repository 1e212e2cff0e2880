"""Exact rewriting of ONNX graphs: the result computes the same function. Imports neither torch nor `train`."""
