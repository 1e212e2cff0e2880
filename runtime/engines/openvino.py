"""Engines in ONNX files, run by OpenVINO on x86 and Arm CPUs."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from runtime.engines.base import Mode, closed_error, first_line, inference_error, require_supported_size
from runtime.engines.onnx import inspect
from runtime.engines.parallel import MAX_FRAMES_AT_ONCE, available_cores
from runtime.errors import DeblurError, EngineError
from runtime.frame import Pixels
from runtime.libraries import import_openvino, install_hint

_MAX_COMPILED_SHAPES = 4


@dataclass(frozen=True)
class _Submitted:
    """A batch in work; OpenVINO reads and writes the memory of both arrays."""

    request: Any
    batch: Pixels
    result: Pixels


class OpenVinoEngine:
    """An ONNX file with one input of frames, as `Engine` describes them, and one such output, on OpenVINO's CPU device.

    OpenVINO compiles the network for each shape of a batch: the result is a sixth faster than one network for all
    shapes, and compiling takes a fraction of a second. The last four shapes stay compiled.

    FP32 and FP16 engines compute in float32. Layers of INT8 engines that are not quantised may run in bfloat16 if
    the CPU has it. `threads`: of the CPU; 0 for all cores. With `mode="throughput"`, each core computes a batch of its
    own, so that no thread waits for another within a layer. Raises EngineError if OpenVINO is not installed, the file
    is damaged, or its inputs or outputs differ from the contract.
    """

    provider: Literal["openvino"] = "openvino"

    def __init__(self, path: Path, *, threads: int = 0, mode: Mode = "latency") -> None:
        try:
            openvino = import_openvino()
        except ImportError as error:
            raise EngineError(
                "OpenVINO is not installed", path, hint=f"{install_hint('openvino')}, or use provider cpu"
            ) from error
        self.spec = inspect(path)
        self.slots = min(threads or available_cores(), MAX_FRAMES_AT_ONCE) if mode == "throughput" else 1
        self.backend = f"OpenVINO {openvino.__version__.split('-')[0]} CPU"
        if self.slots > 1:
            self.backend += f" ({self.slots} frames at once)"
        self._settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if self.slots > 1:
            self._settings = {"NUM_STREAMS": self.slots}
        if not self.spec.precision.startswith("int8"):
            self._settings["INFERENCE_PRECISION_HINT"] = "f32"
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
            # With pinning, several engines of one thread each would all run on the same core.
            self._settings["ENABLE_CPU_PINNING"] = False
        self._core: Any = _shared_core()
        self._submitted: deque[_Submitted] = deque()
        self._requests: OrderedDict[tuple[int, ...], deque[Any]] = OrderedDict()
        """Inference requests by shape of the batch, one for each slot; the shape used last is at the end."""
        try:
            self._model: Any = self._core.read_model(path)
        except Exception as error:  # RuntimeError and others
            raise EngineError(
                f"not an engine that OpenVINO can load ({first_line(error)})", path, hint="use provider cpu"
            ) from error

    def infer(self, batch: Pixels) -> Pixels:
        self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        if self._core is None:
            raise closed_error(self.spec)
        require_supported_size(self.spec, batch)
        batch = np.ascontiguousarray(batch)
        result = np.empty(batch.shape, np.uint8)
        try:
            request = self._next_request(batch.shape)
            request.set_output_tensor(_tensor(result))
            request.set_input_tensor(_tensor(batch))
            request.start_async()
        except Exception as error:  # RuntimeError and others
            raise self._error(error, batch) from error
        self._submitted.append(_Submitted(request, batch, result))

    def collect(self) -> Pixels:
        first = self._submitted.popleft()
        try:
            first.request.wait()
        except Exception as error:  # as above
            raise self._error(error, first.batch) from error
        return first.result

    def close(self) -> None:
        self._requests.clear()
        self._core = self._model = None

    def _error(self, error: Exception, batch: Pixels) -> DeblurError:
        return inference_error(error, self.spec, batch, hint="use provider cpu")

    def _next_request(self, shape: tuple[int, ...]) -> Any:
        """Return the inference request for batches of this shape that was used longest ago, compiled now or before."""
        if shape not in self._requests:
            model = self._model.clone()
            model.reshape(list(shape))
            compiled = self._core.compile_model(model, "CPU", self._settings)
            self._requests[shape] = deque(compiled.create_infer_request() for _ in range(self.slots))
            if len(self._requests) > _MAX_COMPILED_SHAPES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(shape)
        requests = self._requests[shape]
        requests.rotate(-1)
        return requests[-1]


@lru_cache(maxsize=1)
def _shared_core() -> Any:
    """Return the one OpenVINO core of the process, which is never released.

    After the last core is released, the next signal crashes the process (seen with OpenVINO 2026.4).
    """
    return import_openvino().Core()


def _tensor(array: Pixels) -> Any:
    """Return a tensor in the memory of an array."""
    return import_openvino().Tensor(array, shared_memory=True)
