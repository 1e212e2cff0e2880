"""What every engine promises."""

from __future__ import annotations

from typing import Protocol

from runtime.frame import Pixels
from runtime.spec import EngineSpec


class Engine(Protocol):
    """Pixels in, pixels out; used from one thread at a time."""

    @property
    def spec(self) -> EngineSpec: ...

    @property
    def backend(self) -> str:
        """What runs it, for reports: a library and its provider."""
        ...

    def infer(self, batch: Pixels) -> Pixels:
        """Sharpen uint8[N, H, W, 3] BGR; the result has the same shape.

        Raises EngineError if H or W is outside the engine's range, OutOfMemoryError if memory
        does not suffice.
        """
        ...

    def close(self) -> None:
        """Release memory; safe to call twice."""
        ...
