"""The device side: sources, engines, sinks and the pipeline between them (never torch)."""

# Both wheels bring a libxcb of their own. Where PyAV's is loaded first, OpenCV's first window
# hangs for ever (PyAV issue 1050), so OpenCV is loaded before anything here can import PyAV.
import cv2  # noqa: F401
