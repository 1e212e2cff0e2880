"""Engines in ONNX files, run by OpenVINO on x86 and Arm CPUs."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runtime.engines.base import SynchronousEngine, closed_error, first_line, inference_error, require_supported_size
from runtime.engines.onnx import inspect
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.libraries import install_hint

_MAX_COMPILED_SHAPES = 4


class OpenVinoEngine(SynchronousEngine):
    """An ONNX file with one input of frames, as `Engine` describes them, and one such output, on OpenVINO's CPU device.

    OpenVINO compiles the network for each shape of a batch: the result is a sixth faster than one network for all
    shapes, and compiling takes a fraction of a second. The last four shapes stay compiled.

    FP32 and FP16 engines compute in float32. Layers of INT8 engines that are not quantised may run in bfloat16 if
    the CPU has it. `threads`: of the CPU; 0 for all cores. Raises EngineError if OpenVINO is not installed, the file
    is damaged, or its inputs or outputs differ from the contract.
    """

    provider: Literal["openvino"] = "openvino"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        super().__init__()
        try:
            import openvino  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise EngineError(
                "OpenVINO is not installed", path, hint=f"{install_hint('openvino')}, or use provider cpu"
            ) from error
        self.spec = inspect(path)
        self.backend = f"OpenVINO {openvino.__version__.split('-')[0]} CPU"
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if not self.spec.precision.startswith("int8"):
            self._settings["INFERENCE_PRECISION_HINT"] = "f32"
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
            # With pinning, several engines of one thread each would all run on the same core.
            self._settings["ENABLE_CPU_PINNING"] = False
        self._core: Any = _shared_core()
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        """Inference requests by shape of the batch; the one used last is at the end."""
        try:
            self._model: Any = self._core.read_model(path)
        except Exception as error:  # RuntimeError and others
            raise EngineError(
                f"not an engine that OpenVINO can load ({first_line(error)})", path, hint="use provider cpu"
            ) from error

    def infer(self, batch: Pixels) -> Pixels:
        if self._core is None:
            raise closed_error(self.spec)
        require_supported_size(self.spec, batch)
        try:
            result = self._compile(batch.shape).infer([batch], share_inputs=True)[0]
        except Exception as error:  # RuntimeError and others
            raise inference_error(error, self.spec, batch, hint="use provider cpu") from error
        return np.asarray(result, np.uint8)

    def close(self) -> None:
        self._requests.clear()
        self._core = self._model = None

    def _compile(self, shape: tuple[int, ...]) -> Any:
        """Return an inference request for batches of this shape, compiled now or before."""
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape(list(shape))
            self._requests[shape] = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
            if len(self._requests) > _MAX_COMPILED_SHAPES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]


@lru_cache(maxsize=1)
def _shared_core() -> Any:
    """Return the one OpenVINO core of the process, which is never released.

    After the last core is released, the next signal crashes the process (seen with OpenVINO 2026.4).
    """
    import openvino  # noqa: PLC0415 - optional dependency

    return openvino.Core()
