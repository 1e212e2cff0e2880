"""Engines in ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort

from runtime.engines.base import OneAtATime, closed, failure, first_line, require_accepted
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.spec import METADATA_KEY, EngineSpec

OrtProvider = Literal["cpu", "cuda", "tensorrt", "coreml"]
_ORT_NAMES: dict[OrtProvider, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_CONTRACT = "uint8[N, H, W, 3]"


class OnnxEngine(OneAtATime):
    """An ONNX file with one uint8[N, H, W, 3] BGR input and one such output.

    The provider is used or refused, never replaced. `threads=0` uses every core. Raises
    EngineError if the file is damaged, does not fit the contract, or the provider is not there.
    """

    def __init__(self, path: Path, *, provider: OrtProvider = "cpu", threads: int = 0) -> None:
        super().__init__()
        if not has_provider(provider):
            known = [short for short in _ORT_NAMES if has_provider(short)]
            raise EngineError(
                f"provider {provider} is not in this build of ONNX Runtime",
                path,
                hint=f"use --provider {' or '.join(known)}",
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait take the cores from the decoder and the encoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = _session(path, _ORT_NAMES[provider], options, _settings(provider, path))
        if session.get_providers()[0] != _ORT_NAMES[provider]:
            raise EngineError(
                f"ONNX Runtime could not start {provider}", path, hint="install what it needs, or use --provider cpu"
            )
        self.provider = provider
        self.spec = _spec(session, path)
        self.backend = f"ONNX Runtime {ort.__version__} {_ORT_NAMES[provider].removesuffix('ExecutionProvider')}"
        self._runner: _Bound | _Plain | None = _Plain(session)
        if provider in {"cuda", "tensorrt"}:
            self._runner = _Bound(session, "cuda")

    def infer(self, batch: Pixels) -> Pixels:
        if self._runner is None:
            raise closed(self.spec)
        require_accepted(self.spec, batch)
        try:
            return self._runner.run(batch)
        except Exception as error:  # ONNX Runtime has a class of its own for each status code
            raise failure(error, self.spec, batch, hint="export it again") from error

    def close(self) -> None:
        self._runner = None


class _Plain:
    """ONNX Runtime moves frames as it likes."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name

    def run(self, batch: Pixels) -> Pixels:
        (result,) = self._session.run(None, {self._input: batch})
        return np.asarray(result, np.uint8)


class _Bound:
    """Frames at fixed places in a device's memory, made anew when their shape changes."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        self._session, self._device = session, device
        self._shape: tuple[int, ...] = ()

    def run(self, batch: Pixels) -> Pixels:
        if batch.shape != self._shape:
            self._place(batch.shape)
        self._input.update_inplace(np.ascontiguousarray(batch))
        self._session.run_with_iobinding(self._binding)
        return np.array(self._output.numpy(), np.uint8)

    def _place(self, shape: tuple[int, ...]) -> None:
        self._input, self._output = (
            ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.uint8, self._device, 0) for _ in range(2)
        )
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(self._session.get_inputs()[0].name, self._input)
        self._binding.bind_ortvalue_output(self._session.get_outputs()[0].name, self._output)
        self._shape = shape


def has_provider(provider: OrtProvider) -> bool:
    return _ORT_NAMES[provider] in ort.get_available_providers()


def inspect(path: Path) -> EngineSpec:
    """What an ONNX file says about itself, whatever will run it.

    Raises EngineError if it is damaged or does not fit the contract.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # nothing is run
    return _spec(_session(path, _ORT_NAMES["cpu"], options, {}), path)


def _settings(provider: OrtProvider, path: Path) -> dict[str, str]:
    """Of ONNX Runtime's providers for GPUs."""
    if provider == "cuda":
        return {"use_tf32": "0", "prefer_nhwc": "1"}  # FP32 is to be FP32
    if provider == "tensorrt":
        cache = str(path.with_name(f".{path.name}.tensorrt"))
        half = str(int(inspect(path).precision == "fp16"))
        return {
            "trt_fp16_enable": half,
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": cache,
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": cache,
        }
    return {}


def _session(path: Path, provider: str, options: ort.SessionOptions, settings: dict[str, str]) -> ort.InferenceSession:
    options.log_severity_level = 4  # what is wrong reaches the user as one line, not as a log
    try:
        return ort.InferenceSession(str(path), options, providers=[(provider, settings)])
    except Exception as error:  # as above
        raise EngineError(
            f"not an engine that ONNX Runtime can load ({first_line(error)})", path, hint="export it again"
        ) from error


def _spec(session: ort.InferenceSession, path: Path) -> EngineSpec:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or not all(_fits(node) for node in inputs + outputs):
        got = "; ".join(f"{node.name}: {node.type} {node.shape}" for node in inputs + outputs)
        raise EngineError(
            f"expected one input and one output of {_CONTRACT}, got {got}", path, hint="export it with python -m export"
        )
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    try:
        spec = EngineSpec.from_json(text) if text else EngineSpec(name=path.stem)
    except ValueError as error:
        raise EngineError(f"its {METADATA_KEY} is damaged ({error})", path, hint="export it again") from error
    height, width = inputs[0].shape[1:3]
    if isinstance(height, int):
        spec = dataclasses.replace(spec, height=(height, height))
    if isinstance(width, int):
        spec = dataclasses.replace(spec, width=(width, width))
    return spec


def _fits(node: ort.NodeArg) -> bool:
    return node.type == "tensor(uint8)" and len(node.shape) == 4 and node.shape[3] == 3
