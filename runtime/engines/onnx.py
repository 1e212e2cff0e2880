"""Engines in ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from runtime.commands import EXPORTER
from runtime.engines.base import SynchronousEngine, closed_error, first_line, inference_error, require_supported_size
from runtime.errors import EngineError
from runtime.files import has_utf8_name
from runtime.frame import Pixels
from runtime.spec import METADATA_KEY, EngineSpec

OrtProvider = Literal["cpu", "cuda", "tensorrt", "coreml"]
_ORT_NAMES: dict[OrtProvider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_CONTRACT = "uint8[N, H, W, 3] or uint8[N, 3 H / 2, W]"


class OnnxEngine(SynchronousEngine):
    """An ONNX file with one input of frames, as `Engine` describes them, and one such output, on ONNX Runtime.

    The engine runs on `provider` or not at all. `threads`: of the CPU; 0 for all cores. Raises EngineError if the
    file is damaged, its inputs or outputs differ from the contract, or the provider is not available.
    """

    def __init__(self, path: Path, *, provider: OrtProvider = "cpu", threads: int = 0) -> None:
        super().__init__()
        if not has_provider(provider):
            available = [name for name in _ORT_NAMES if has_provider(name)]
            raise EngineError(
                f"provider {provider} is not in this build of ONNX Runtime",
                path,
                hint=f"use provider {' or '.join(available)}",
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores from the decoder and the encoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = _load_session(path, _ORT_NAMES[provider], options, _provider_options(provider, path))
        if session.get_providers()[0] != _ORT_NAMES[provider]:
            raise EngineError(
                f"ONNX Runtime could not start {provider}",
                path,
                hint="install the libraries that it needs, or use provider cpu",
            )
        self.provider: OrtProvider = provider
        self.spec = _read_session_spec(session, path)
        self.backend = f"ONNX Runtime {ort.__version__} {_ORT_NAMES[provider].removesuffix('ExecutionProvider')}"
        self._runner: _IoBindingRunner | _HostRunner | None = _HostRunner(session)
        if provider in {"cuda", "tensorrt"}:
            self._runner = _IoBindingRunner(session, "cuda")

    def infer(self, batch: Pixels) -> Pixels:
        if self._runner is None:
            raise closed_error(self.spec)
        require_supported_size(self.spec, batch)
        try:
            return self._runner.run(batch)
        except Exception as error:  # ONNX Runtime has an exception class of its own for each status code
            raise inference_error(error, self.spec, batch, hint="export it again") from error

    def close(self) -> None:
        self._runner = None


class _HostRunner:
    """Frames in host memory; ONNX Runtime copies them as it needs."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def run(self, batch: Pixels) -> Pixels:
        (result,) = self._session.run(None, {self._input: batch})
        return np.asarray(result, np.uint8)


class _IoBindingRunner:
    """Frames in buffers of the device that stay at the same address until the shape of the batch changes."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session, self._device = session, device
        self._shape: tuple[int, ...] = ()

    def run(self, batch: Pixels) -> Pixels:
        if batch.shape != self._shape:
            self._allocate(batch.shape)
        self._input.update_inplace(np.ascontiguousarray(batch))
        self._session.run_with_iobinding(self._binding)
        return np.array(self._output.numpy(), np.uint8)

    def _allocate(self, shape: tuple[int, ...]) -> None:
        self._input, self._output = (
            ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.uint8, self._device, 0) for _ in range(2)
        )
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._session.get_inputs()[0].name, self._input)
        self._binding.bind_ortvalue_output(self._session.get_outputs()[0].name, self._output)
        self._shape = shape


def has_provider(provider: OrtProvider) -> bool:
    """Return whether the installed build of ONNX Runtime contains a provider."""
    return _ORT_NAMES[provider] in ort.get_available_providers()


def inspect(path: Path) -> EngineSpec:
    """Return the spec of an ONNX file, without preparing it for any backend.

    Raises EngineError if the file is damaged or its inputs or outputs differ from the contract.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # the session is never run
    return _read_session_spec(_load_session(path, _ORT_NAMES["cpu"], options, {}), path)


def _provider_options(provider: OrtProvider, path: Path) -> dict[str, str]:
    """Return the options of a GPU provider of ONNX Runtime; empty for the others."""
    if provider == "cuda":
        return {"use_tf32": "0", "prefer_nhwc": "1"}  # TF32 would round FP32 engines
    if provider == "tensorrt":
        cache = str(path.with_name(f".{path.name}.tensorrt"))
        fp16 = str(int(inspect(path).precision == "fp16"))
        return {
            "trt_fp16_enable": fp16,
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": cache,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": cache,
        }
    return {}


def _load_session(
    path: Path, ort_provider: str, options: ort.SessionOptions, provider_options: dict[str, str]
) -> ort.InferenceSession:
    if not has_utf8_name(path):
        raise EngineError("name of the engine is not UTF-8", path, hint="rename it")
    options.log_severity_level = 4  # fatal only: the user gets one line, not a log
    try:
        return ort.InferenceSession(str(path), options, providers=[(ort_provider, provider_options)])
    except Exception as error:  # one class for each status code, as above
        raise EngineError(
            f"not an engine that ONNX Runtime can load ({first_line(error)})", path, hint="export it again"
        ) from error


def _read_session_spec(session: ort.InferenceSession, path: Path) -> EngineSpec:
    """Return the spec from the metadata of a model; a fixed height or width in the graph replaces its range."""
    try:
        return _read_spec(session, path)
    except UnicodeDecodeError as error:  # ONNX Runtime loads such files, and ONNX forbids them
        raise EngineError("names or metadata of the file are not UTF-8", path, hint="export it again") from error


def _read_spec(session: ort.InferenceSession, path: Path) -> EngineSpec:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    is_pair = len(inputs) == len(outputs) == 1 and all(_is_frames(node) for node in inputs + outputs)
    if not is_pair or len(inputs[0].shape) != len(outputs[0].shape) or _differ_in_size(inputs[0], outputs[0]):
        signature = "; ".join(f"{node.name}: {node.type} {node.shape}" for node in inputs + outputs)
        raise EngineError(
            f"expected one input and one output of {_CONTRACT}, got {signature}",
            path,
            hint=f"export it with python -m {EXPORTER}",
        )
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    try:
        spec = EngineSpec.from_json(text) if text else EngineSpec(name=path.stem)
    except ValueError as error:
        raise EngineError(f"metadata {METADATA_KEY} is damaged ({error})", path, hint="export it again") from error
    height, width = inputs[0].shape[1:3]
    spec = dataclasses.replace(spec, pixels="bgr" if len(inputs[0].shape) == 4 else "yuv420")
    if isinstance(height, int):
        height = height if spec.pixels == "bgr" else height * 2 // 3
        spec = dataclasses.replace(spec, height=(height, height))
    if isinstance(width, int):
        spec = dataclasses.replace(spec, width=(width, width))
    return spec


def _differ_in_size(one: ort.NodeArg, other: ort.NodeArg) -> bool:
    """Return whether two tensors state different sizes; a name in place of a size may be any."""
    sizes = zip(one.shape, other.shape, strict=True)
    return any(isinstance(size, int) and isinstance(its, int) and size != its for size, its in sizes)


def _is_frames(node: ort.NodeArg) -> bool:
    """Return whether an input or output is uint8[N, H, W, 3] or uint8[N, 3 H / 2, W]."""
    return node.type == "tensor(uint8)" and (len(node.shape) == 3 or (len(node.shape) == 4 and node.shape[3] == 3))
