"""Models on a Triton Inference Server, or on another server with the KServe v2 protocol, through gRPC."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from queue import Queue
from typing import Any, Literal

import numpy as np

from runtime.commands import TRITON_EXPORTER
from runtime.engines.base import closed_error, first_line, require_supported_size
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.libraries import install_hint
from runtime.spec import METADATA_KEY, EngineSpec

SCHEME = "triton:"
"""First part of the path of such an engine: a Path turns `triton://HOST:PORT/MODEL` into `triton:/HOST:PORT/MODEL`."""
_HINT = f"start it with the repository that python -m {TRITON_EXPORTER} writes"
_TIMEOUT_S = 30.0
"""Seconds to wait for the answer to a request."""
_SLOTS = 3
"""Frames on their way at the same time, so that neither the network nor the server is idle."""


def is_triton(path: Path) -> bool:
    """Return whether a path is the address of a model on a server."""
    return path.parts[:1] == (SCHEME,)


class TritonEngine:
    """A model with one uint8[N, H, W, 3] BGR input and one such output, at `triton://HOST:PORT/MODEL[/VERSION]`.

    Its spec is in the configuration of the model, where `export.triton` writes it. Raises EngineError if
    `tritonclient` is not installed, the server cannot be reached, or the inputs or outputs differ from the contract.
    """

    provider: Literal["triton"] = "triton"
    slots = _SLOTS

    def __init__(self, path: Path) -> None:
        try:
            import tritonclient.grpc as triton  # noqa: PLC0415 - an optional package
        except ImportError as error:
            raise EngineError("tritonclient is not installed", _url(path), hint=install_hint("tritonclient")) from error
        if len(path.parts) not in {3, 4}:
            raise EngineError("not the address of a model", _url(path), hint="give triton://HOST:PORT/MODEL[/VERSION]")
        self._triton: Any = triton
        self._server, self._model, self._version = (*path.parts[1:], "")[:3]
        self._client: Any = triton.InferenceServerClient(self._server)
        self._responses: deque[Queue[Any]] = deque()
        """A queue for each submitted batch, which receives the result or the exception."""
        try:
            metadata = self._request("get_model_metadata")
            config = self._request("get_model_config").config
            self._input, self._output = _tensor_names(metadata, path)
            self.spec = _read_config_spec(config, self._model, path)
        except EngineError:
            self.close()
            raise
        self.backend = f"{config.backend or config.platform or 'a model'} on {self._server}"

    def _request(self, method: str) -> Any:
        """Call a method of the client on this model; raises EngineError."""
        try:
            return getattr(self._client, method)(self._model, self._version, client_timeout=_TIMEOUT_S)
        except Exception as error:  # the exceptions of gRPC and of the client have no common base class
            raise EngineError(
                f"the server does not answer or has no such model ({first_line(error)})",
                f"triton://{self._server}/{self._model}",
                hint=_HINT,
            ) from error

    def infer(self, batch: Pixels) -> Pixels:
        self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        if self._client is None:
            raise closed_error(self.spec)
        require_supported_size(self.spec, batch)
        frames = self._triton.InferInput(self._input, list(batch.shape), "UINT8")
        frames.set_data_from_numpy(np.ascontiguousarray(batch))
        response: Queue[Any] = Queue()
        self._client.async_infer(
            self._model,
            [frames],
            lambda result, error: response.put(error or result),
            model_version=self._version,
            client_timeout=_TIMEOUT_S,
        )
        self._responses.append(response)

    def collect(self) -> Pixels:
        result = self._responses.popleft().get()
        if isinstance(result, Exception):
            raise EngineError(
                f"the server failed on a frame ({first_line(result)})", self.spec.name, hint="read the server's log"
            )
        return np.array(result.as_numpy(self._output), np.uint8)  # the array of the response is read-only

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _tensor_names(metadata: Any, path: Path) -> tuple[str, str]:
    """Return the names of the input and the output; raises EngineError if they differ from the contract."""
    tensors = [(tensor.datatype, list(tensor.shape)[3:]) for tensor in (*metadata.inputs, *metadata.outputs)]
    if len(metadata.inputs) != 1 or tensors != [("UINT8", [3])] * 2:
        raise EngineError(
            f"expected one input and one output of uint8[N, H, W, 3], got {tensors}", _url(path), hint=_HINT
        )
    return metadata.inputs[0].name, metadata.outputs[0].name


def _read_config_spec(config: Any, model: str, path: Path) -> EngineSpec:
    """Return the spec in the configuration of a model; without one, only the name is known."""
    text = config.parameters[METADATA_KEY].string_value if METADATA_KEY in config.parameters else ""
    try:
        return EngineSpec.from_json(text) if text else EngineSpec(name=model)
    except ValueError as error:
        raise EngineError(
            f"metadata {METADATA_KEY} is damaged ({error})", _url(path), hint="export it again"
        ) from error


def _url(path: Path) -> str:
    return "/".join((SCHEME, "", *path.parts[1:]))
