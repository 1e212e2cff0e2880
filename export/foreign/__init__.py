"""ONNX files that others exported: read, understood, checked by experiment, and turned into cores for the chain."""
