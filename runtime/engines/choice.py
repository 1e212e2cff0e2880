"""The fastest engine of a folder that is good enough, found by trying them on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from runtime.engines.base import Engine
from runtime.engines.trial import median_ms, trial_frame
from runtime.errors import DeblurError, EngineError
from runtime.files import write_json
from runtime.frame import Pixels, Size
from runtime.spec import EngineSpec

SUFFIXES = (".onnx", ".plan")
TRIAL_S = 1.0
"""Of each engine."""
_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx")


def choose(
    folder: Path, open_it: Callable[[Path], Engine], *, size: Size, settings: Sequence[object] = ()
) -> tuple[Engine, str]:
    """Open the fastest engine of a folder for frames of `size` that keeps within the budget of its spec, and say why.

    What was chosen is remembered for this machine, until the files, the libraries, the size or the
    `settings` change. Raises EngineError if no engine of the folder can be used.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    memory, key = _memory(), _key(files, size, settings)
    known = _remembered(memory).get(key)
    if known in {path.name for path in files}:
        with suppress(DeblurError):
            return open_it(folder / str(known)), f"{known}, the fastest here when it was last tried"
    engines: dict[str, Engine] = {}
    refused: list[str] = []
    frame = trial_frame(size)
    for path in files:
        try:
            engine = open_it(path)
        except DeblurError as error:
            refused.append(f"{path.name}: {error.what}")
            continue
        if why := unfit(engine.spec, size) or _failure(engine, frame):
            engine.close()
            refused.append(f"{path.name}: {why}")
        else:
            engines[path.name] = engine
    if not engines:
        reasons = "; ".join(refused) or "there is none in it"
        raise EngineError(f"no engine that can be used ({reasons})", folder, hint="export one with python -m export")
    times = dict(zip(engines, median_ms(list(engines.values()), frame, seconds=TRIAL_S * len(engines)), strict=True))
    best = min(times, key=lambda name: times[name])
    for name, engine in engines.items():
        if name != best:
            engine.close()
    with suppress(DeblurError):  # it is chosen again next time
        write_json(memory, _remembered(memory) | {key: best})
    shown = ", ".join(f"{name} {times[name]:.1f} ms" for name in sorted(times, key=lambda name: times[name]))
    return engines[best], "; ".join([shown, *refused])


def unfit(spec: EngineSpec, size: Size) -> str:
    """Why an engine is not to be chosen; empty if it may be."""
    if not spec.accepts(width=size[0], height=size[1]):
        return f"not for frames of {size[0]}x{size[1]}"
    if spec.precision == "fp32":
        return ""
    if spec.loss_db is None or spec.budget_db is None:
        return "what it loses was not measured"
    return f"loses {spec.loss_db:.2f} dB, its budget is {spec.budget_db:.2f}" if spec.loss_db > spec.budget_db else ""


def _failure(engine: Engine, frame: Pixels) -> str:
    try:
        engine.infer(frame)
    except DeblurError as error:
        return error.what
    return ""


def _memory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deblur" / "engines.json"


def _remembered(memory: Path) -> dict[str, str]:
    try:
        values = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _key(files: Sequence[Path], size: Size, settings: Sequence[object]) -> str:
    """Of all that the choice hangs on."""
    libraries = []
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            libraries.append((name, version(name)))
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    what = (platform.machine(), platform.node(), os.cpu_count(), libraries, states, size, tuple(map(str, settings)))
    return hashlib.sha256(repr(what).encode()).hexdigest()[:16]
