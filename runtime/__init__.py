"""Restore blurred images, videos and live streams on a device; never imports torch.

    from runtime import open_engine, open_sink, open_source, Pipeline, restore

    sharp = restore(image)  # one uint8[H, W, 3] BGR array

    with open_engine("edge-l") as engine:  # many arrays
        sharp = engine(frame)

        source = open_source("blurred.mp4")  # a whole video
        Pipeline(source, engine, open_sink("sharp.mp4", source.info)).run()

Every error that is not a bug is a `DeblurError` with an exit code and one line that says what to do.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runtime.libraries import explain_import_error, report_import_errors

report_import_errors()
# Both wheels bring a libxcb of their own. If PyAV's is loaded first, OpenCV's first window hangs for ever
# (PyAV issue 1050), so OpenCV is loaded before any module of this package can import PyAV.
try:
    import cv2  # noqa: F401
except ImportError as error:
    raise ImportError(str(explain_import_error(error) or error), name=error.name) from error

if TYPE_CHECKING:
    from runtime.engines import open_engine
    from runtime.errors import (
        DeblurError,
        EngineError,
        InputError,
        NumbersError,
        OutOfMemoryError,
        OutputError,
        SourceLostError,
        UsageError,
    )
    from runtime.frame import Frame
    from runtime.options import RunOptions
    from runtime.pipeline import Pipeline
    from runtime.session import restore
    from runtime.sinks import EncoderSettings, open_sink
    from runtime.sources import open_source

_MODULES = {
    "DeblurError": "runtime.errors",
    "EncoderSettings": "runtime.sinks.encoder_settings",
    "EngineError": "runtime.errors",
    "Frame": "runtime.frame",
    "InputError": "runtime.errors",
    "NumbersError": "runtime.errors",
    "OutOfMemoryError": "runtime.errors",
    "OutputError": "runtime.errors",
    "Pipeline": "runtime.pipeline",
    "RunOptions": "runtime.options",
    "SourceLostError": "runtime.errors",
    "UsageError": "runtime.errors",
    "open_engine": "runtime.engines",
    "open_sink": "runtime.sinks",
    "open_source": "runtime.sources",
    "restore": "runtime.session",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import runtime` stays fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})


__all__ = [
    "DeblurError",
    "EncoderSettings",
    "EngineError",
    "Frame",
    "InputError",
    "NumbersError",
    "OutOfMemoryError",
    "OutputError",
    "Pipeline",
    "RunOptions",
    "SourceLostError",
    "UsageError",
    "open_engine",
    "open_sink",
    "open_source",
    "restore",
]
