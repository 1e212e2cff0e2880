"""Engines in ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnxruntime as ort

from runtime.errors import EngineError, OutOfMemoryError
from runtime.frame import Pixels
from runtime.spec import METADATA_KEY, EngineSpec

Provider = Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

_ORT_NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_CONTRACT = "uint8[N, H, W, 3]"


class OnnxEngine:
    """An ONNX file with one uint8[N, H, W, 3] BGR input and one such output.

    `provider="auto"` takes CUDA where ONNX Runtime has it, else the CPU; any other is used or
    refused, never replaced. `threads=0` uses every core. Raises EngineError if the file is
    damaged, does not fit the contract, or the provider is not there.
    """

    def __init__(self, path: Path, *, provider: Provider = "auto", threads: int = 0) -> None:
        wanted = _provider(provider, path)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what is wrong reaches the user as one line, not as a log
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[wanted])
        except Exception as error:  # ONNX Runtime has a class of its own for each status code
            raise EngineError(
                f"not an engine that ONNX Runtime can load ({_first_line(error)})", path, hint="export it again"
            ) from error
        if self._session.get_providers()[0] != wanted:
            raise EngineError(
                f"ONNX Runtime could not start {wanted}", path, hint="install what it needs, or use --provider cpu"
            )
        self.spec = _spec(self._session, path)
        self.backend = f"ONNX Runtime {ort.__version__} {wanted.removesuffix('ExecutionProvider')}"
        self._input = self._session.get_inputs()[0].name

    def infer(self, batch: Pixels) -> Pixels:
        height, width = batch.shape[1:3]
        if not self.spec.accepts(width=width, height=height):
            low, high = zip(self.spec.width, self.spec.height, strict=True)
            raise EngineError(
                f"frame of {width}x{height} is outside the engine's range {low[0]}x{low[1]} to {high[0]}x{high[1]}",
                self.spec.name,
                hint="scale the source, or export for its size",
            )
        try:
            (result,) = self._session.run(None, {self._input: batch})
        except Exception as error:  # as above
            message = _first_line(error)
            if "alloc" in message.lower() or isinstance(error, MemoryError):
                raise OutOfMemoryError(
                    f"not enough memory for a frame of {width}x{height}", self.spec.name, hint="use smaller frames"
                ) from error
            raise EngineError(
                f"engine failed on a frame of {width}x{height} ({message})", self.spec.name, hint="export it again"
            ) from error
        return np.asarray(result, np.uint8)

    def close(self) -> None:
        """Nothing but memory is held, and it goes with the object."""


def _provider(provider: Provider, path: Path) -> str:
    available = ort.get_available_providers()
    if provider == "auto":
        return next(name for name in (_ORT_NAMES["cuda"], _ORT_NAMES["cpu"]) if name in available)
    if _ORT_NAMES[provider] not in available:
        known = [short for short, name in _ORT_NAMES.items() if name in available]
        raise EngineError(
            f"provider {provider} is not in this build of ONNX Runtime",
            path,
            hint=f"use --provider {' or '.join(known)}",
        )
    return _ORT_NAMES[provider]


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


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
