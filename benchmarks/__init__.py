"""Measurements of the cost and the quality of engines."""

from contextlib import suppress

with suppress(ImportError):  # the next import of the runtime reports it, but `gpu_check` runs without OpenCV
    import runtime.libraries  # noqa: F401 - OpenCV before PyAV, and one line where a library is missing
