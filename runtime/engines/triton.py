"""Models on a Triton Inference Server, or another that speaks the KServe v2 protocol, by gRPC."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np

from runtime.engines.base import closed, first_line, require_accepted
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.spec import METADATA_KEY, EngineSpec

SCHEME = "triton:"
"""First part of such an engine's path: a Path folds the two slashes of `triton://HOST:PORT/MODEL` into one."""
_HINT = "start it with the repository that python -m export.triton writes"
_TIMEOUT_S = 30.0
_SLOTS = 3
"""Frames under way, so that the network and the server's queue are never empty."""


def is_triton(path: Path) -> bool:
    return path.parts[:1] == (SCHEME,)


class TritonEngine:
    """A model with one uint8[N, H, W, 3] BGR input and one such output; raises EngineError if it cannot be reached.

    What it says about itself is in its configuration, where `export.triton` puts it.
    """

    slots = _SLOTS

    def __init__(self, path: Path) -> None:
        try:
            import tritonclient.grpc as triton  # noqa: PLC0415 - only for those who have a server
        except ImportError as error:
            raise EngineError(
                "tritonclient is not installed", _url(path), hint="pip install 'deblur-toolkit[fleet]'"
            ) from error
        if len(path.parts) not in {3, 4}:
            raise EngineError("not the address of a model", _url(path), hint="give triton://HOST:PORT/MODEL[/VERSION]")
        self._triton: Any = triton
        self._server, self._model, self._version = (*path.parts[1:], "")[:3]
        self._client: Any = triton.InferenceServerClient(self._server)
        self._results: deque[Queue[Any]] = deque()
        try:
            metadata = self._asked("get_model_metadata")
            config = self._asked("get_model_config").config
        except EngineError:
            self.close()
            raise
        shapes = [(each.datatype, list(each.shape)[3:]) for each in (*metadata.inputs, *metadata.outputs)]
        if len(metadata.inputs) != 1 or shapes != [("UINT8", [3])] * 2:
            self.close()
            raise EngineError(
                f"expected one input and one output of uint8[N, H, W, 3], got {shapes}", _url(path), hint=_HINT
            )
        self._input, self._output = metadata.inputs[0].name, metadata.outputs[0].name
        text = config.parameters[METADATA_KEY].string_value if METADATA_KEY in config.parameters else ""
        try:
            self.spec = EngineSpec.from_json(text) if text else EngineSpec(name=self._model)
        except ValueError as error:
            self.close()
            raise EngineError(f"its {METADATA_KEY} is damaged ({error})", _url(path), hint="export it again") from error
        self.backend = f"{config.backend or config.platform or 'a model'} on {self._server}"

    def _asked(self, method: str) -> Any:
        try:
            return getattr(self._client, method)(self._model, self._version, client_timeout=_TIMEOUT_S)
        except Exception as error:  # gRPC's and the client's have no common ancestor
            raise EngineError(
                f"no such model on a server there ({first_line(error)})",
                f"triton://{self._server}/{self._model}",
                hint=_HINT,
            ) from error

    def infer(self, batch: Pixels) -> Pixels:
        self.submit(batch)
        return self.collect()

    def submit(self, batch: Pixels) -> None:
        if self._client is None:
            raise closed(self.spec)
        require_accepted(self.spec, batch)
        frames = self._triton.InferInput(self._input, list(batch.shape), "UINT8")
        frames.set_data_from_numpy(np.ascontiguousarray(batch))
        arrived: Queue[Any] = Queue()
        self._client.async_infer(
            self._model,
            [frames],
            lambda result, error: arrived.put(error or result),
            model_version=self._version,
            client_timeout=_TIMEOUT_S,
        )
        self._results.append(arrived)

    def collect(self) -> Pixels:
        result = self._results.popleft().get()
        if isinstance(result, Exception):
            raise EngineError(
                f"the server failed on a frame ({first_line(result)})", self.spec.name, hint="see its log"
            )
        return np.asarray(result.as_numpy(self._output), np.uint8)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None


def _url(path: Path) -> str:
    return "/".join((SCHEME, "", *path.parts[1:]))
