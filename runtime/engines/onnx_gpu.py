"""ONNX Runtime on an NVIDIA GPU: how a session starts there, and with which memory of frames.

Nothing here has run on a GPU yet. The tests run it with ONNX Runtime's CPU provider, and with the libraries of
onnxruntime-gpu 1.31 up to the point where they ask for a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from runtime.engines import onnx_plugin
from runtime.engines.base import first_line
from runtime.engines.cuda import Cuda
from runtime.engines.cuda_drivers import open_cuda
from runtime.engines.onnx_binding import BoundRunner, CaptureError, Frames, OrtFrames, PinnedFrames, Shape
from runtime.engines.onnx_providers import (
    BIAS_ROUNDING,
    ORT_NAMES,
    OrtProvider,
    preload_libraries,
    provider_options,
    require_precision,
    silence,
    start_error,
)
from runtime.errors import DeblurError, EngineError
from runtime.frame import Pixels
from runtime.spec import EngineSpec


class GpuRunner:
    """A session on a GPU provider, with frames at fixed addresses.

    CUDA graphs (`cuda` only) are left out if the session cannot start with them, or if the first capture fails.
    `describe` gets a text for `backend` about graphs and memory, and another one when they change. Raises EngineError
    if the provider cannot run the engine.
    """

    def __init__(
        self,
        path: Path,
        spec: EngineSpec,
        input_name: str,
        provider: OrtProvider,
        create_options: Callable[[], ort.SessionOptions],
        *,
        describe: Callable[[str], None],
    ) -> None:
        require_precision(provider, spec, path)
        self.spec = onnx_plugin.limit_sizes(spec) if provider == "trt-rtx" else spec
        self._path, self._input_name, self._provider = path, input_name, provider
        self._create_options, self._describe = create_options, describe
        preload_libraries(provider)
        self._memory = FrameMemory(provider)
        try:
            self._runner = self._start(with_graphs=provider == "cuda")
        except BaseException:
            self._memory.close()
            raise

    def run(self, batch: Pixels) -> Pixels:
        if self._provider == "trt-rtx" and len(batch) > 1:  # its session takes single frames
            return np.concatenate([self._run(frame[np.newaxis]) for frame in batch])
        return self._run(batch)

    def _run(self, batch: Pixels) -> Pixels:
        try:
            return self._run_with_graph_if_possible(batch)
        except DeblurError:
            raise
        except Exception as error:
            raise RuntimeError(_short_reason(error)) from error

    def _run_with_graph_if_possible(self, batch: Pixels) -> Pixels:
        try:
            return self._runner.run(batch)
        except CaptureError as error:
            self._runner.close()
            self._runner = self._start(with_graphs=False, reason=_short_reason(error))
            return self._runner.run(batch)

    def close(self) -> None:
        self._runner.close()
        self._memory.close()

    def _start(self, *, with_graphs: bool, reason: str = "") -> BoundRunner:
        """Open the session, without CUDA graphs if that is the only way; `reason`: why there are none."""
        session = None
        if with_graphs:
            try:
                session = self._open_session(with_graphs=True)
            except EngineError as error:
                reason = _short_reason(error.__cause__ or error)
        has_graphs = session is not None
        if session is None:
            session = self._open_session(with_graphs=False)
        graphs = [f"no CUDA graph: {reason}" if reason else "CUDA graphs"] if self._provider == "cuda" else []
        self._describe("; ".join([*graphs, self._memory.description]))
        return BoundRunner(session, self._memory.allocate, with_graphs=has_graphs)

    def _open_session(self, *, with_graphs: bool) -> ort.InferenceSession:
        name = ORT_NAMES[self._provider]
        options = self._create_options()
        options.log_severity_level = 4  # fatal only: the user gets one line, not a log
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        settings = provider_options(self._provider, self.spec, self._path, self._input_name, with_graphs=with_graphs)
        common: dict[str, Any] = {"enable_fallback": 0, "disabled_optimizers": [BIAS_ROUNDING]}
        try:
            with silence():
                if self._provider == "trt-rtx":
                    options.add_provider_for_devices([onnx_plugin.open_device(self._path)], settings)
                    session = ort.InferenceSession(str(self._path), options, **common)
                else:
                    providers = [(name, settings)]
                    session = ort.InferenceSession(str(self._path), options, providers=providers, **common)
        except DeblurError:
            raise
        except Exception as error:  # ONNX Runtime has an exception class of its own for each status code
            raise start_error(self._provider, self._path, _short_reason(error)) from error
        if session.get_providers()[0] != name:
            raise start_error(self._provider, self._path)
        require_convolutions_on_gpu(session, self._provider, self._path)
        return session


class FrameMemory:
    """Memory for frames where a provider reads and writes them.

    For `trt-rtx` it is host memory, and ONNX Runtime copies: how its plug-ins name the memory of a GPU differs from
    version to version. For the others it is on the GPU, with page-locked memory on the host if PyCUDA or cuda-bindings
    is installed.
    """

    def __init__(self, provider: OrtProvider) -> None:
        self._device = "cpu" if provider == "trt-rtx" else "cuda"
        self.description = "page-locked frames"
        self._cuda: Cuda | None = None
        self._stream = 0
        if self._device == "cpu":
            self.description = "frames copied by ONNX Runtime"
            return
        try:
            self._cuda = open_cuda()
            with self._cuda.active():
                self._stream = self._cuda.create_stream()
        except EngineError as error:
            self.description = f"frames not page-locked: {error.what}"

    def allocate(self, shape: Shape) -> Frames:
        return PinnedFrames(shape, self._cuda, self._stream) if self._cuda else OrtFrames(shape, self._device)

    def close(self) -> None:
        """Release the GPU, after all frames are released."""
        cuda, self._cuda = self._cuda, None
        if cuda:
            with cuda.active():
                cuda.destroy_stream(self._stream)
            cuda.close()


def require_convolutions_on_gpu(session: ort.InferenceSession, provider: OrtProvider, path: Path) -> None:
    """Raise EngineError if a provider left convolutions to the CPU, which ONNX Runtime does without a word.

    Shapes and sizes are computed on the CPU in any case.
    """
    assignment = getattr(session, "get_provider_graph_assignment_info", None)  # since 1.24
    if assignment is None:
        return
    parts = [part for part in assignment() if part.ep_name == ORT_NAMES["cpu"]]
    if count := sum("Conv" in node.op_type for part in parts for node in part.get_nodes()):
        raise EngineError(
            f"{provider} leaves {count} convolutions to the CPU", path, hint="give an FP16 engine, or use provider cpu"
        )


def _short_reason(error: BaseException) -> str:
    """Return the message of ONNX Runtime without its file names, signatures and the name of the host."""
    line = first_line(error)
    if failure := re.search(r"(CUDA|CUDNN|CUBLAS) failure \d+: [^;]+", line):
        return failure.group().strip()
    return re.sub(r"^/\S+:\d+ .*?\) (?=[A-Z\[])", "", line)[:200]
