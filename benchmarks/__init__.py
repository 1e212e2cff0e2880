"""Measurements of the cost and the quality of engines."""

import runtime.libraries  # noqa: F401 - OpenCV before PyAV, and one line where a library is missing
