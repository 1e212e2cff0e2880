"""Execution of one batch at a time by a TensorRT context, as a CUDA graph where possible."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from runtime.engines.cuda import Buffer, Cuda
from runtime.errors import DeblurError, EngineError
from runtime.frame import Pixels


class TensorRtSlot:
    """An execution context with its own stream and buffers.

    The work for a shape is captured as a CUDA graph when a batch of this shape comes first, and launched afterwards.
    All methods are called inside `cuda.active()`.
    """

    def __init__(self, cuda: Cuda, context: Any, tensor_names: tuple[str, str], log: Any) -> None:
        self.graph: Any | None = None
        """Graph of upload, computation and download; None if they cannot be captured."""
        self._cuda, self._context, self._tensor_names, self._log = cuda, context, tensor_names, log
        self._stream = cuda.create_stream()
        self._buffers: list[Buffer] = []
        """Input and output; empty before the first batch."""
        self.shape: tuple[int, ...] = ()
        """Shape of the batches that the slot is prepared for; empty before the first."""
        self._size = 0
        """Bytes of a batch."""

    @property
    def buffer_bytes(self) -> int:
        return sum(len(buffer.host) for buffer in self._buffers)

    def start(self, batch: Pixels) -> None:
        """Queue the work for a batch uint8[N, H, W, 3]."""
        self.prepare(batch.shape)
        self._buffers[0].host[: self._size] = batch.reshape(-1)
        if self.graph is not None:
            self._cuda.launch(self.graph, self._stream)
        else:
            self._queue()

    def finish(self) -> Pixels:
        """Wait for the batch and return its result, in new memory."""
        self._cuda.wait(self._stream)
        return np.array(self._buffers[1].host[: self._size].reshape(self.shape))

    def compute_ms(self, count: int) -> list[float]:
        """Return the GPU time of `count` computations of the last batch, without copies.

        The computation runs as a graph if frames do. Each follows an upload, which keeps the GPU busy while the
        computation is queued; its start then does not wait for the CPU.
        """
        graph = None if self.graph is None else self._cuda.capture(self._stream, self._execute)
        work = self._execute if graph is None else partial(self._cuda.launch, graph, self._stream)
        times_ms = []
        try:
            for _ in range(count):
                self._cuda.upload(self._buffers[0], self._size, self._stream)
                times_ms.append(self._cuda.elapsed_ms(self._stream, work))
        finally:
            if graph is not None:
                self._cuda.destroy_graph(graph)
        return times_ms

    def close(self) -> None:
        """Release everything; an error in one release does not prevent the others."""
        with suppress(DeblurError):
            self._cuda.wait(self._stream)
        self._context = None
        releases = [self._destroy_graph, *(buffer.free for buffer in self._buffers)]
        releases.append(partial(self._cuda.destroy_stream, self._stream))
        self._buffers = []
        for release in releases:
            with suppress(DeblurError):
                release()

    def prepare(self, shape: tuple[int, ...]) -> None:
        """Set buffers, addresses and graph for batches of a shape: the work runs once, and is then captured."""
        if shape == self.shape:
            return
        self._destroy_graph()
        self.shape = ()
        self._size = int(np.prod(shape))
        if len(self._buffers) < 2 or len(self._buffers[0].host) < self._size:
            while self._buffers:
                self._buffers.pop().free()
            for _ in range(2):
                self._buffers.append(self._cuda.allocate(self._size))
        accepted = self._context.set_input_shape(self._tensor_names[0], tuple(shape))
        for name, buffer in zip(self._tensor_names, self._buffers, strict=True):
            accepted = accepted and self._context.set_tensor_address(name, buffer.device)
        if not accepted:
            raise EngineError(
                f"plan refuses frames of shape {shape} ({self._log.reason()})", hint="build a plan for this shape"
            )
        result_shape = tuple(self._context.get_tensor_shape(self._tensor_names[1]))
        if result_shape != shape:  # it would be written beyond the buffer, or read as something else
            raise EngineError(
                f"plan returns {list(result_shape)} for {list(shape)}", hint="build it from another engine"
            )
        self._queue()
        self._cuda.wait(self._stream)
        if self._is_capturable():
            self.graph = self._cuda.capture(self._stream, self._queue)
        self.shape = shape

    def _is_capturable(self) -> bool:
        """Return False if TensorRT-RTX says that it allocates memory while it computes this shape."""
        ask = getattr(self._context, "is_stream_capturable", None)  # TensorRT does not have it
        return ask is None or bool(ask(self._stream))

    def _queue(self) -> None:
        self._cuda.upload(self._buffers[0], self._size, self._stream)
        self._execute()
        self._cuda.download(self._buffers[1], self._size, self._stream)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise EngineError(f"plan failed on a frame ({self._log.reason()})", hint="build it again")

    def _destroy_graph(self) -> None:
        if self.graph is not None:
            self._cuda.destroy_graph(self.graph)
            self.graph = None
