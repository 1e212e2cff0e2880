"""Check of the GPU path on an NVIDIA machine: a list of steps, each in a process of its own, and one page."""
