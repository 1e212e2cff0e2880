"""Check of the GPU path on an NVIDIA machine."""
