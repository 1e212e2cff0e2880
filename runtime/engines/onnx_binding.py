"""Runs of an ONNX Runtime session on frames that stay at fixed addresses, where a GPU reads and writes them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from runtime.engines.cuda import Cuda
from runtime.errors import DeblurError, EngineError
from runtime.frame import Pixels

MAX_GRAPHS = 4
"""Number of shapes that keep a CUDA graph and its memory, such as those of several streams."""
_NO_GRAPH = -1
"""Run option `gpu_graph_id` of a run that is neither captured nor replayed."""
Shape = tuple[int, ...]


class CaptureError(Exception):
    """A run that should have become a CUDA graph failed, for the reason that ONNX Runtime gives."""


class Frames(Protocol):
    """Memory of one batch before and after the session, at addresses that do not change."""

    def bind(self, binding: Any, names: tuple[str, str]) -> None:
        """Let a session read its input and write its output here; `names` are those of the two tensors."""
        ...

    def write(self, batch: Pixels) -> None:
        """Copy a batch to where the session reads it."""
        ...

    def read(self) -> Pixels:
        """Return what the session wrote, in new memory."""
        ...

    def free(self) -> None:
        """Release the memory."""
        ...


class OrtFrames:
    """Memory of ONNX Runtime on a device. The driver copies through a page-locked buffer of its own."""

    def __init__(self, shape: Shape, device: str) -> None:
        self._values = [
            ort.OrtValue.ortvalue_from_shape_and_type(list(shape), np.uint8, device, 0) for _ in ("input", "output")
        ]

    def bind(self, binding: Any, names: tuple[str, str]) -> None:
        binding.bind_ortvalue_input(names[0], self._values[0])
        binding.bind_ortvalue_output(names[1], self._values[1])

    def write(self, batch: Pixels) -> None:
        self._values[0].update_inplace(np.ascontiguousarray(batch))

    def read(self) -> Pixels:
        return np.array(self._values[1].numpy(), np.uint8)

    def free(self) -> None:
        self._values.clear()


class PinnedFrames:
    """Page-locked memory on the host and memory on the GPU; on an integrated GPU both are the same memory."""

    def __init__(self, shape: Shape, cuda: Cuda, stream: int, device: str = "cuda") -> None:
        self._shape, self._cuda, self._stream, self._device = shape, cuda, stream, device
        self._size = int(np.prod(shape))
        with cuda.active():
            self._input = cuda.allocate(self._size)
            try:
                self._output = cuda.allocate(self._size)
            except BaseException:
                self._input.free()
                raise

    def bind(self, binding: Any, names: tuple[str, str]) -> None:
        where = (self._device, 0, np.uint8, self._shape)
        binding.bind_input(names[0], *where, self._input.device)
        binding.bind_output(names[1], *where, self._output.device)

    def write(self, batch: Pixels) -> None:
        np.copyto(self._input.host.reshape(self._shape), batch)
        with self._cuda.active():
            self._cuda.upload(self._input, self._size, self._stream)
            self._cuda.wait(self._stream)  # the session works on a stream of its own

    def read(self) -> Pixels:
        with self._cuda.active():
            self._cuda.download(self._output, self._size, self._stream)
            self._cuda.wait(self._stream)
        return np.array(self._output.host.reshape(self._shape))

    def free(self) -> None:
        with self._cuda.active():
            for buffer in (self._input, self._output):
                with suppress(DeblurError):
                    buffer.free()


class _BoundShape:
    """The frames of one shape, bound to a session, and the CUDA graph that replays its work."""

    def __init__(self, session: ort.InferenceSession, shape: Shape, frames: Frames) -> None:
        self.shape, self.frames = shape, frames
        self.options: ort.RunOptions | None = None
        self.has_run = False
        self._session = session
        self._binding = session.io_binding()
        frames.bind(self._binding, (session.get_inputs()[0].name, session.get_outputs()[0].name))

    def use_graph(self, number: int) -> None:
        """Replay the graph of this number in later runs; the first of them captures it."""
        self.options = ort.RunOptions()
        self.options.add_run_config_entry("gpu_graph_id", str(number))

    def run(self, batch: Pixels) -> Pixels:
        self.frames.write(batch)
        self._session.run_with_iobinding(self._binding, self.options)  # returns when the GPU has finished
        self.has_run = True
        return self.frames.read()


class BoundRunner:
    """A session whose frames are copied to the device and back, and nowhere else.

    `with_graphs` says that the session was opened with CUDA graphs. A graph is valid for one shape and its addresses: a
    shape that comes again gets a graph of its own, up to MAX_GRAPHS; all other runs are without a graph. A folder of
    images of different sizes thus captures nothing. `close` may come from another thread during `run`.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        allocate: Callable[[Shape], Frames],
        *,
        with_graphs: bool = False,
    ) -> None:
        self._session, self._allocate, self._with_graphs = session, allocate, with_graphs
        self._captured: dict[Shape, _BoundShape] = {}
        self._last: _BoundShape | None = None
        """Shape of the last run without a graph."""
        self._lock = Lock()
        self._is_open = True

    @property
    def graph_count(self) -> int:
        """Number of shapes with a CUDA graph."""
        return len(self._captured)

    def run(self, batch: Pixels) -> Pixels:
        """Return the result of a batch; raises CaptureError if the run that captures a graph fails."""
        with self._lock:
            if not self._is_open:
                raise EngineError("engine has been closed", hint="open it again")
            if bound := self._captured.get(batch.shape):
                return bound.run(batch)
            last = self._last
            if last is None or last.shape != batch.shape:
                return self._rebind(batch.shape).run(batch)
            if not self._with_graphs or not last.has_run or self.graph_count == MAX_GRAPHS:
                return last.run(batch)
            last.use_graph(self.graph_count + 1)
            try:
                result = last.run(batch)
            except Exception as error:
                raise CaptureError(str(error)) from error
            self._captured[last.shape], self._last = last, None
            return result

    def close(self) -> None:
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            for bound in (*self._captured.values(), *([self._last] if self._last else [])):
                bound.frames.free()
            self._captured.clear()
            self._last = None

    def _rebind(self, shape: Shape) -> _BoundShape:
        """Replace the frames of the last shape by frames of another one."""
        if self._last:
            last, self._last = self._last, None
            last.frames.free()
        bound = _BoundShape(self._session, shape, self._allocate(shape))
        if self._with_graphs:
            bound.use_graph(_NO_GRAPH)
        self._last = bound
        return bound
