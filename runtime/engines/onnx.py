"""Engines in ONNX files, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime as ort

from runtime.engines.base import SynchronousEngine, closed_error, first_line, inference_error, require_supported_size
from runtime.engines.onnx_gpu import GpuRunner
from runtime.engines.onnx_providers import GPU_PROVIDERS, ORT_NAMES, OrtProvider, require_provider, start_error
from runtime.engines.onnx_spec import read_session_spec
from runtime.errors import DeblurError, EngineError
from runtime.files import has_utf8_name
from runtime.frame import Pixels
from runtime.spec import EngineSpec


class Runner(Protocol):
    """A session and the memory of its frames."""

    def run(self, batch: Pixels) -> Pixels:
        """Return the result of a batch, in new memory."""
        ...

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        ...


class OnnxEngine(SynchronousEngine):
    """An ONNX file with one input of frames, as `Engine` describes them, and one such output, on ONNX Runtime.

    The engine runs on `provider` or not at all. `threads`: of the CPU; 0 for all cores. Raises EngineError if the
    file is damaged, its inputs or outputs differ from the contract, or the provider is not available.
    """

    def __init__(self, path: Path, *, provider: OrtProvider = "cpu", threads: int = 0) -> None:
        super().__init__()
        require_provider(provider, path)
        self.provider: OrtProvider = provider
        self._name = f"ONNX Runtime {ort.__version__} {ORT_NAMES[provider].removesuffix('ExecutionProvider')}"
        self.backend = self._name
        self._runner: Runner | None
        if provider in GPU_PROVIDERS:
            session = _open_for_inspection(path)
            spec, input_name = read_session_spec(session, path), session.get_inputs()[0].name
            runner = GpuRunner(path, spec, input_name, provider, lambda: _options(threads), describe=self._describe)
            self.spec, self._runner = runner.spec, runner
        else:
            session = _load_session(path, ORT_NAMES[provider], _options(threads))
            if session.get_providers()[0] != ORT_NAMES[provider]:
                raise start_error(provider, path)
            self.spec = read_session_spec(session, path)
            self._runner = HostRunner(session)

    def _describe(self, details: str) -> None:
        self.backend = f"{self._name} ({details})"

    def infer(self, batch: Pixels) -> Pixels:
        if self._runner is None:
            raise closed_error(self.spec)
        require_supported_size(self.spec, batch)
        try:
            return self._runner.run(batch)
        except DeblurError:
            raise
        except Exception as error:  # ONNX Runtime has an exception class of its own for each status code
            hint = "try provider cpu" if self.provider in GPU_PROVIDERS else "export it again"
            raise inference_error(error, self.spec, batch, hint=hint) from error

    def close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()


class HostRunner:
    """Frames in host memory; ONNX Runtime copies them as it needs."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def run(self, batch: Pixels) -> Pixels:
        (result,) = self._session.run(None, {self._input: batch})
        return np.asarray(result, np.uint8)

    def close(self) -> None:
        """Do nothing: the session ends with its last reference, after a call that is still inside it."""


def inspect(path: Path) -> EngineSpec:
    """Return the spec of an ONNX file, without preparing it for any backend.

    Raises EngineError if the file is damaged or its inputs or outputs differ from the contract.
    """
    return read_session_spec(_open_for_inspection(path), path)


def _open_for_inspection(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the session is never run
    return _load_session(path, ORT_NAMES["cpu"], options)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin while they wait take the cores from the decoder and the encoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _load_session(path: Path, ort_provider: str, options: ort.SessionOptions) -> ort.InferenceSession:
    if not has_utf8_name(path):
        raise EngineError("name of the engine is not UTF-8", path, hint="rename it")
    options.log_severity_level = 4  # fatal only: the user gets one line, not a log
    try:
        return ort.InferenceSession(str(path), options, providers=[ort_provider], enable_fallback=0)
    except Exception as error:  # one class for each status code, as above
        raise EngineError(
            f"not an engine that ONNX Runtime can load ({first_line(error)})", path, hint="export it again"
        ) from error
