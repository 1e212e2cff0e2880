"""The contract of an engine backend, and the helpers that a backend needs to keep it.

Steps to add a backend:

1. Write a class with the members of `Engine` in `runtime/engines/NAME.py`. Derive it from `SynchronousEngine` if the
   library computes one batch per call; then `__init__`, `infer` and `close` are enough.
2. Raise the errors of `require_supported_size`, `closed_error` and `inference_error`; no exception of the library
   leaves the class.
3. Add one line to `BACKENDS` in `tests/engine_backends.py`. `tests/runtime/test_engine_conformance.py` then checks
   every promise of this file.
4. Let `open_engine` in `runtime/engines/__init__.py` open it.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, Protocol, get_args

import numpy as np

from runtime.errors import DeblurError, EngineError, OutOfMemoryError
from runtime.frame import Pixels, Size
from runtime.spec import EngineSpec, PixelFormat

Mode = Literal["latency", "throughput"]
"""Goal of an engine: `latency` works on one batch at a time and returns each as early as possible; `throughput` works
on several batches at the same time and returns the most frames per second."""
MODES: tuple[Mode, ...] = get_args(Mode)


class Engine(Protocol):
    """A network that restores frames: uint8 frames in, uint8 frames of the same size out.

    A batch is a NumPy array uint8[N, H, W, 3] with N >= 1, in BGR order and full range (0 to 255), or, if
    `spec.pixels` says so, uint8[N, 3 H / 2, W] with the planes of I420, H and W even. It may be a view that is not
    contiguous. The caller does not change it until its result is collected; the engine never changes it.
    The result has the shape of the batch and is in new memory: the caller owns it, and later calls never overwrite it.

    Order of calls: `submit` starts work on a batch and `collect` returns the results in the order of submission. At
    most `slots` batches may be submitted and not yet collected; the copies of one batch then overlap the computation
    of another. `infer` does both for one batch, and is only allowed while no other batch is submitted. `collect`
    without a submitted batch and `submit` without a free slot are mistakes of the caller; the engine need not
    detect them.

    Threads: the caller makes one call at a time, but not always from the same thread. Several engines may work in
    different threads at the same time. `close` is the exception: after a run has failed, it may come while another
    thread is still inside a call, and it must not release memory that this call uses.

    Errors: `infer` and `submit` raise ValueError for an array that is no batch. `infer`, `submit` and
    `collect` raise EngineError if H or W is outside the range of `spec`, if the engine
    is closed, or if the library fails, and OutOfMemoryError if host or device memory does not suffice. An error of
    a submitted batch is raised by its `submit`, after which the batch must not be collected, or by its `collect`. The
    engine stays usable for the next batch.
    """

    @property
    def spec(self) -> EngineSpec:
        """Origin, size range and measured quality of the engine; it does not change while the engine is open."""
        ...

    @property
    def backend(self) -> str:
        """Library, version and device in words, for reports: `ONNX Runtime 1.20.0 CPU`."""
        ...

    @property
    def provider(self) -> str:
        """Name of what computes: cpu, openvino, cuda, tensorrt, trt-rtx, coreml, tensorrt-rtx, triton."""
        ...

    @property
    def slots(self) -> int:
        """Largest number of batches that may be submitted and not yet collected; at least 1."""
        ...

    def infer(self, batch: Pixels) -> Pixels:
        """Restore a batch uint8[N, H, W, 3] BGR and return the result, of the same shape and dtype."""
        ...

    def submit(self, batch: Pixels) -> None:
        """Start work on a batch uint8[N, H, W, 3] BGR; needs a free slot."""
        ...

    def collect(self) -> Pixels:
        """Wait for the batch that was submitted first and return its result."""
        ...

    def close(self) -> None:
        """Release memory and threads. A second call does nothing. Submitted batches are lost."""
        ...


class SynchronousEngine:
    """Base class for libraries that compute one batch per call: `submit` calls `infer` and keeps the result.

    A subclass calls `super().__init__()`, sets `spec`, `backend` and `provider`, and writes `infer` and `close`.
    """

    spec: EngineSpec
    backend: str
    provider: str
    slots = 1

    def __init__(self) -> None:
        self._results: deque[Pixels] = deque()

    def infer(self, batch: Pixels) -> Pixels:
        """Restore a batch as `Engine.infer` promises."""
        raise NotImplementedError

    def submit(self, batch: Pixels) -> None:
        self._results.append(self.infer(batch))

    def collect(self) -> Pixels:
        return self._results.popleft()


def require_batch(batch: Pixels, pixels: PixelFormat = "bgr") -> Size:
    """Return width and height of the frames of a batch; raises ValueError for an array of another form or type."""
    contract = {"bgr": "uint8[N, H, W, 3] in BGR order", "yuv420": "uint8[N, 3 H / 2, W]"}[pixels]
    if not isinstance(batch, np.ndarray):
        raise ValueError(f"expected {contract}, got {type(batch).__name__}")  # noqa: TRY004 - as below
    if pixels == "bgr":
        fits = batch.ndim == 4 and batch.shape[-1] == 3
    else:
        fits = batch.ndim == 3 and batch.shape[1] % 3 == 0 and batch.shape[2] % 2 == 0
    if batch.dtype != np.uint8 or not fits or not batch.size:
        is_frame = pixels == "bgr" and batch.ndim == 3 and batch.shape[-1] == 3
        hint = "; a batch of one frame is frame[np.newaxis]" if is_frame else ""
        raise ValueError(f"expected {contract}, got {batch.dtype}{list(batch.shape)}{hint}")
    return frame_size(batch)


def frame_size(batch: Pixels) -> Size:
    """Return width and height of the frames of a batch in one of the forms of `PixelFormat`."""
    rows, width = batch.shape[1:3]
    return width, rows if batch.ndim == 4 else rows * 2 // 3


def require_supported_size(spec: EngineSpec, batch: Pixels) -> None:
    """Raise ValueError for an array that is no batch, EngineError for frames outside the size range of the engine."""
    width, height = require_batch(batch, spec.pixels)
    if not spec.accepts(width=width, height=height):
        low, high = zip(spec.width, spec.height, strict=True)
        raise EngineError(
            f"frame of {width}x{height} is outside the engine's range {low[0]}x{low[1]} to {high[0]}x{high[1]}",
            spec.name,
            hint="scale the source, or export for its size",
        )


def require_same_shape(spec: EngineSpec, batch: Pixels, result: Pixels) -> Pixels:
    """Return the result of a batch; raises EngineError if its shape or type is not that of the batch."""
    if (result.shape, result.dtype) != (batch.shape, batch.dtype):
        shapes = [f"{array.dtype}{list(array.shape)}" for array in (result, batch)]
        raise EngineError(f"engine returned {shapes[0]} for {shapes[1]}", spec.name, hint="export it again")
    return result


def closed_error(spec: EngineSpec) -> EngineError:
    """Return the error for a call on an engine that is closed."""
    return EngineError("engine has been closed", spec.name, hint="open it again")


def inference_error(error: Exception, spec: EngineSpec, batch: Pixels, *, hint: str) -> DeblurError:
    """Return the error for an exception of the library: OutOfMemoryError if it speaks of memory, else EngineError."""
    width, height = frame_size(batch)
    message = first_line(error)
    if any(word in message.lower() for word in ("alloc", "out of memory")) or isinstance(error, MemoryError):
        return OutOfMemoryError(
            f"not enough memory for a frame of {width}x{height}", spec.name, hint="use smaller frames"
        )
    return EngineError(f"engine failed on a frame of {width}x{height} ({message})", spec.name, hint=hint)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or the name of its class if the message is empty."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
