"""Implicit INT8 calibration of TensorRT up to version 10, which chooses scales and layers by itself.

Q/DQ engines from `python -m export` are measured against a budget in dB; plans made here are not. Not yet run on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Literal

import cv2
import numpy as np

from runtime.engines.cuda_drivers import open_cuda
from runtime.errors import EngineError
from runtime.frame import Pixels, Size

Algorithm = Literal["entropy", "minmax"]
_CLASSES: dict[Algorithm, str] = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


@contextmanager
def open_calibrator(trt: Any, algorithm: Algorithm, frames: Iterable[Pixels], size: Size) -> Iterator[Any]:
    """Yield a TensorRT calibrator that reads frames, uint8[H, W, 3] BGR, resized to `size` (width, height).

    Its GPU memory is released at the end of the context. Raises EngineError for TensorRT 11 and newer, which has no
    calibrators, and if the GPU cannot be used from Python.
    """
    base = getattr(trt, _CLASSES[algorithm], None)
    if base is None:
        raise EngineError(
            f"TensorRT {trt.__version__} has no calibrators: from version 11 on the ONNX alone decides the precision",
            hint="build deblur_int8.onnx, whose Q/DQ nodes were calibrated by python -m export",
        )
    with closing(open_cuda()) as cuda, cuda.active():
        size_bytes = size[0] * size[1] * 3
        buffer, stream = cuda.allocate(size_bytes), cuda.create_stream()
        remaining = iter(frames)

        class Calibrator(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                super().__init__()

            def get_batch_size(self) -> int:
                return 1

            def get_batch(self, names: list[str]) -> list[int] | None:
                frame = next(remaining, None)
                if frame is None:
                    return None
                buffer.host[:size_bytes] = np.asarray(cv2.resize(frame, size), np.uint8).reshape(-1)
                cuda.upload(buffer, size_bytes, stream)
                cuda.wait(stream)
                return [buffer.device]

            def read_calibration_cache(self) -> None:
                """Return None, because cached scales could come from another model or other frames."""

            def write_calibration_cache(self, content: bytes) -> None:
                """Store nothing, for the same reason."""

        try:
            yield Calibrator()
        finally:
            buffer.free()
            cuda.destroy_stream(stream)
