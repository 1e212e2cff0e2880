"""TensorRT and TensorRT-RTX: two packages with one interface, chosen in this file alone."""

from __future__ import annotations

import importlib
from typing import Any

from runtime.errors import EngineError
from runtime.sidecar import Flavour


def package(flavour: Flavour) -> Any:
    """The module; raises EngineError with how to install it."""
    name = flavour.replace("-", "_")
    try:
        module = importlib.import_module(name)
        module.Builder  # noqa: B018 - the package on PyPI is empty without NVIDIA's index
    except (ImportError, AttributeError, OSError) as error:
        hint = {
            "tensorrt": "on a Jetson it comes with JetPack; elsewhere pip install 'deblur-toolkit[tensorrt]'",
            "tensorrt-rtx": "pip install 'deblur-toolkit[rtx]'",
        }[flavour]
        raise EngineError(f"{flavour} cannot be imported ({error})", hint=hint) from error
    return module


def messages(module: Any) -> Any:
    """A logger for the module that keeps what it is told, as pairs of severity and text in `kept`.

    Neither builder nor runtime raises: what was wrong stands in the log alone.
    """

    class Messages(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.kept: list[tuple[Any, str]] = []

        def log(self, severity: Any, text: str) -> None:
            self.kept.append((severity, text))

        def reason(self) -> str:
            """The first error, on one line."""
            worst = (module.ILogger.Severity.INTERNAL_ERROR, module.ILogger.Severity.ERROR)
            errors = [" ".join(text.split()) for severity, text in self.kept if severity in worst]
            return errors[0][:300] if errors else "no reason given"

    return Messages()
