"""TensorRT and TensorRT-RTX: two packages with the same interface. Only this file decides between them."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from runtime.errors import EngineError
from runtime.libraries import install_hint
from runtime.sidecar import Flavour


def import_tensorrt(flavour: Flavour) -> Any:
    """Import and return the module of TensorRT or TensorRT-RTX; raises EngineError if it is not installed."""
    name = flavour.replace("-", "_")
    try:
        module = importlib.import_module(name)
        module.Builder  # noqa: B018 - the package on PyPI is empty without NVIDIA's index
    except (ImportError, AttributeError, OSError) as error:
        hint = {
            "tensorrt": f"on a Jetson it comes with JetPack; elsewhere {install_hint('tensorrt', 'pycuda')}",
            "tensorrt-rtx": install_hint("tensorrt_rtx", "cuda"),
        }[flavour]
        raise EngineError(f"{flavour} cannot be imported ({error})", hint=hint) from error
    return module


def create_logger(module: Any) -> Any:
    """Return a logger for the builder and the runtime of `module`, which report errors to their logger only.

    Its list `records` holds all messages as pairs of severity and text; `reason()` returns the first error. Python's
    logger with the name of the module gets every message too, as `debug`, which is silent unless somebody wants it.
    """
    python_logger = logging.getLogger(getattr(module, "__name__", "tensorrt"))

    class RecordingLogger(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.records: list[tuple[Any, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.records.append((severity, text))
            python_logger.debug("%s", text)

        def reason(self) -> str:
            """Return the first error on one line, at most 300 characters."""
            error_severities = (module.ILogger.Severity.INTERNAL_ERROR, module.ILogger.Severity.ERROR)
            errors = [" ".join(text.split()) for severity, text in self.records if severity in error_severities]
            return errors[0][:300] if errors else "no reason given"

    return RecordingLogger()
