"""Implicit INT8 calibration of TensorRT up to version 10, which chooses scales and layers by itself.

Q/DQ engines from `python -m export` are measured against a budget in dB; plans made here are not. Not yet run on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import cv2
import numpy as np

from runtime.errors import EngineError
from runtime.frame import Pixels, Size

Algorithm = Literal["entropy", "minmax"]
_CLASSES: dict[Algorithm, str] = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}


def create_calibrator(trt: Any, algorithm: Algorithm, frames: Iterable[Pixels], size: Size) -> Any:
    """Return a TensorRT calibrator that reads frames, uint8[H, W, 3] BGR, resized to `size` (width, height).

    Raises EngineError for TensorRT 11 and newer, which has no calibrators.
    """
    base = getattr(trt, _CLASSES[algorithm], None)
    if base is None:
        raise EngineError(
            f"TensorRT {trt.__version__} has no calibrators: from version 11 on the ONNX alone decides the precision",
            hint="build deblur_int8.onnx, whose Q/DQ nodes were calibrated by python -m export",
        )
    import pycuda.autoprimaryctx  # noqa: F401, PLC0415 - only calibration needs device memory
    import pycuda.driver as cuda  # noqa: PLC0415

    width, height = size
    remaining = iter(frames)

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.memory = cuda.mem_alloc(width * height * 3)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: list[str]) -> list[int] | None:
            frame = next(remaining, None)
            if frame is None:
                return None
            cuda.memcpy_htod(self.memory, np.ascontiguousarray(cv2.resize(frame, (width, height))))
            return [int(self.memory)]

        def read_calibration_cache(self) -> None:
            """Return None, because cached scales could come from another model or other frames."""

        def write_calibration_cache(self, content: bytes) -> None:
            """Store nothing, for the same reason."""

    return Calibrator()
