"""What every engine promises."""

from __future__ import annotations

from collections import deque
from typing import Literal, Protocol, get_args

from runtime.errors import DeblurError, EngineError, OutOfMemoryError
from runtime.frame import Pixels
from runtime.spec import EngineSpec

Mode = Literal["latency", "throughput"]
"""One frame at a time, each as soon as can be; or several under way, as many in all as can be."""
MODES: tuple[Mode, ...] = get_args(Mode)


class Engine(Protocol):
    """Pixels in, pixels out; used from one thread at a time.

    Some have several batches under way, so that copies of one overlap the work on another: up to
    `slots` can be submitted before the first is collected.
    """

    @property
    def spec(self) -> EngineSpec: ...

    @property
    def backend(self) -> str:
        """What runs it, for reports: a library and its provider."""
        ...

    @property
    def slots(self) -> int: ...

    def infer(self, batch: Pixels) -> Pixels:
        """Sharpen uint8[N, H, W, 3] BGR; the result has the same shape and is the caller's to keep.

        Nothing else may be under way. Raises EngineError if H or W is outside the engine's range
        or it has been closed, OutOfMemoryError if memory does not suffice.
        """
        ...

    def submit(self, batch: Pixels) -> None:
        """Start work on a batch; raises as `infer` does."""
        ...

    def collect(self) -> Pixels:
        """The result of the batch that was submitted first."""
        ...

    def close(self) -> None:
        """Release memory; safe to call twice."""
        ...


class OneAtATime:
    """`submit` and `collect` for engines that only `infer`."""

    slots = 1

    def __init__(self) -> None:
        self._results: deque[Pixels] = deque()

    def infer(self, batch: Pixels) -> Pixels:
        raise NotImplementedError

    def submit(self, batch: Pixels) -> None:
        self._results.append(self.infer(batch))

    def collect(self) -> Pixels:
        return self._results.popleft()


def require_accepted(spec: EngineSpec, batch: Pixels) -> None:
    """Raise EngineError if an engine is not for frames of this size."""
    height, width = batch.shape[1:3]
    if not spec.accepts(width=width, height=height):
        low, high = zip(spec.width, spec.height, strict=True)
        raise EngineError(
            f"frame of {width}x{height} is outside the engine's range {low[0]}x{low[1]} to {high[0]}x{high[1]}",
            spec.name,
            hint="scale the source, or export for its size",
        )


def closed(spec: EngineSpec) -> EngineError:
    return EngineError("engine has been closed", spec.name, hint="open it again")


def failure(error: Exception, spec: EngineSpec, batch: Pixels, *, hint: str) -> DeblurError:
    """What a library's error while it runs means: memory, or the engine."""
    height, width = batch.shape[1:3]
    message = first_line(error)
    if "alloc" in message.lower() or isinstance(error, MemoryError):
        return OutOfMemoryError(
            f"not enough memory for a frame of {width}x{height}", spec.name, hint="use smaller frames"
        )
    return EngineError(f"engine failed on a frame of {width}x{height} ({message})", spec.name, hint=hint)


def first_line(error: Exception) -> str:
    """What a library says is wrong, or else the error's name."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
