"""The same ONNX files, run by OpenVINO on x86 and Arm CPUs."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import numpy as np

from runtime.engines.base import OneAtATime, closed, failure, first_line, require_accepted
from runtime.engines.onnx import inspect
from runtime.errors import EngineError
from runtime.frame import Pixels

_KEPT_SHAPES = 4


class OpenVinoEngine(OneAtATime):
    """An ONNX file as `OnnxEngine` takes it, compiled anew for each size of frames: that is faster than one
    network for all sizes by a sixth, and takes a fraction of a second. The last few sizes are kept.

    FP32 and FP16 engines compute in float32. In INT8 engines what is not quantised may run in
    bfloat16, where the CPU has it. `threads=0` uses every core. Raises EngineError if OpenVINO
    is not installed, the file is damaged, or does not fit the contract.
    """

    provider: Final = "openvino"

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        super().__init__()
        try:
            import openvino  # noqa: PLC0415 - only some users have it
        except ImportError as error:
            raise EngineError(
                "OpenVINO is not installed", path, hint="pip install 'deblur-toolkit[openvino]', or use --provider cpu"
            ) from error
        self.spec = inspect(path)
        self.backend = f"OpenVINO {openvino.__version__.split('-')[0]} CPU"
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if not self.spec.precision.startswith("int8"):
            self._settings["INFERENCE_PRECISION_HINT"] = "f32"
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
            self._settings["ENABLE_CPU_PINNING"] = False  # or several engines of one thread each share one core
        self._core: Any = openvino.Core()
        self._requests: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        try:
            self._model: Any = self._core.read_model(path)
        except Exception as error:  # RuntimeError and others
            raise EngineError(
                f"not an engine that OpenVINO can load ({first_line(error)})", path, hint="use --provider cpu"
            ) from error

    def infer(self, batch: Pixels) -> Pixels:
        if self._core is None:
            raise closed(self.spec)
        require_accepted(self.spec, batch)
        try:
            result = self._request(batch.shape).infer([batch], share_inputs=True)[0]
        except Exception as error:  # as above
            raise failure(error, self.spec, batch, hint="use --provider cpu") from error
        return np.asarray(result, np.uint8)

    def close(self) -> None:
        self._requests.clear()
        self._core = self._model = None

    def _request(self, shape: tuple[int, ...]) -> Any:
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape(list(shape))
            self._requests[shape] = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
            if len(self._requests) > _KEPT_SHAPES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        return self._requests[shape]
