"""Choice of the fastest engine in a folder that keeps its quality budget, measured on this machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import sleep

from runtime.commands import EXPORTER
from runtime.engines.base import Engine
from runtime.engines.onnx_providers import GPU_PROVIDERS
from runtime.engines.timing import PAUSE_S, measure_ms_per_frame, median_ms_per_frame, trial_frame
from runtime.engines.variants import PixelChoice
from runtime.errors import DeblurError, EngineError
from runtime.files import sha256, write_json
from runtime.frame import Pixels, Size
from runtime.json_text import read_json
from runtime.sidecar import sidecar_path
from runtime.spec import FLOAT_NCHW, EngineSpec

SUFFIXES = (".onnx", ".plan")
TRIAL_S = 1.0
"""Seconds of measurement for each engine."""
_SLOW_FACTOR = 2.0
"""An engine that takes longer than the fastest by this factor for a frame is not measured further."""
_BGR_FACTOR = 1.1
"""Factor on the time of an engine for BGR beside one for planes: frames of video have to be converted for it."""
_LIBRARIES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-ep-nv-tensorrt-rtx-cu12",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
)


def choose_engine(
    folder: Path,
    open_engine: Callable[[Path], Engine],
    *,
    size: Size,
    pixels: PixelChoice = "bgr",
    settings: Sequence[object] = (),
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Engine, Path, str]:
    """Open the fastest engine of a folder that accepts frames of `size` (width, height) and keeps its budget in dB.

    Engines for another form of frames than `pixels` are left out; `auto` takes both, and the one for planes unless
    another engine is clearly faster.

    `open_engine` opens one file; an engine that it cannot open is left out. Returns the open engine, its file, and
    the reason for the choice as one line for the user. The choice is cached for this machine until the contents of the
    files, the versions of the libraries, the size or the `settings` change; a copy of the folder needs no new trial.
    `say` receives a line before a trial. Raises EngineError if no engine of the folder can be used.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    paths = [path for path in files if not path.stem.endswith(FLOAT_NCHW)]  # those are for other programs
    cache, key = _cache_path(), _cache_key(paths, size, (pixels, *settings))
    cached_name = _read_cache(cache).get(key)
    if cached_name in {path.name for path in paths}:
        cached = folder / str(cached_name)
        with suppress(DeblurError):
            return open_engine(cached), cached, f"{cached_name}, as in the last trial here"
    if len(paths) > 1:
        say(f"trial   of the engines in {folder} with frames of {size[0]}x{size[1]}, which may take a minute")
    engines, rejections = _open_candidates(paths, open_engine, size, pixels)
    if not engines:  # none takes frames of this size whole, so that tiles are left
        engines, rejections = _open_candidates(paths, open_engine, size, pixels, in_tiles=True)
    if not engines:
        reasons = "; ".join(rejections) or "the folder has no .onnx and no .plan file"
        raise EngineError(
            f"no engine that can be used ({reasons})", folder, hint=f"export one with python -m {EXPORTER}"
        )
    if len(rejected := [name for name in engines if is_for_cpus_on_gpu(engines[name])]) < len(engines):
        for name in rejected:
            engines.pop(name).close()
            rejections.append(f"{name}: is for CPUs")
    times_ms, slow_ms = _compare(engines, size)
    factors = {name: _BGR_FACTOR if engine.spec.pixels == "bgr" else 1 for name, engine in engines.items()}
    fastest = min(times_ms, key=lambda name: factors[name] * times_ms[name])
    for name in engines.keys() - {fastest}:
        engines[name].close()
    with suppress(DeblurError):  # without a cache the next run measures again
        write_json(cache, _read_cache(cache) | {key: fastest})
    parts = _describe_times(fastest, times_ms, slow_ms)
    if times_ms[fastest] > min(times_ms.values()):
        parts.append(f"engines for planes need no conversion of frames, worth {_BGR_FACTOR - 1:.0%}")
    return engines[fastest], folder / fastest, "; ".join([*parts, *rejections])


def _compare(engines: Mapping[str, Engine], size: Size) -> tuple[dict[str, float], dict[str, float]]:
    """Return the milliseconds of a frame of `size` by engine, and the rough ones of engines that are far slower."""
    if len(engines) == 1:
        return dict.fromkeys(engines, 0.0), {}
    frames, shares = {}, {}
    for name, engine in engines.items():
        width, height = _fit(size, engine.spec)
        frames[name] = trial_frame((width, height), engine.spec.pixels)
        shares[name] = size[0] * size[1] / (width * height)
    first_ms = {name: shares[name] * _measure_roughly(engine, frames[name]) for name, engine in engines.items()}
    limit_ms = _SLOW_FACTOR * min(first_ms.values())
    fast = [name for name in engines if first_ms[name] <= limit_ms]
    seconds = TRIAL_S * len(fast)
    medians_ms = median_ms_per_frame([engines[name] for name in fast], [frames[name] for name in fast], seconds=seconds)
    times_ms = {name: shares[name] * ms for name, ms in zip(fast, medians_ms, strict=True)}
    return times_ms, {name: ms for name, ms in first_ms.items() if name not in times_ms}


def _measure_roughly(engine: Engine, frame: Pixels) -> float:
    """Return the milliseconds per frame with all slots busy, the smaller of two times."""
    sleep(PAUSE_S)  # threads of the engine before it may still wait for work
    return min(measure_ms_per_frame(engine, frame, engine.slots) for _ in range(2))


def _describe_times(fastest: str, times_ms: Mapping[str, float], slow_ms: Mapping[str, float]) -> list[str]:
    if len(times_ms) + len(slow_ms) == 1:
        return [f"{fastest}, the only one that can be used"]
    others = sorted(times_ms.keys() - {fastest}, key=times_ms.__getitem__)
    parts = [", ".join(f"{name} {times_ms[name]:.1f} ms" for name in (fastest, *others))]
    if slow_ms:
        slow = ", ".join(f"{name} {ms:.0f}" for name, ms in sorted(slow_ms.items(), key=lambda item: item[1]))
        parts.append(f"roughly {slow} ms")
    return parts


def _open_candidates(
    paths: Sequence[Path],
    open_engine: Callable[[Path], Engine],
    size: Size,
    pixels: PixelChoice,
    *,
    in_tiles: bool = False,
) -> tuple[dict[str, Engine], list[str]]:
    """Return the open engines that may be chosen, by file name, and a line for each that may not.

    `in_tiles`: engines that take no frames of `size` whole may be chosen too.
    """
    engines: dict[str, Engine] = {}
    rejections: list[str] = []
    for path in paths:
        try:
            engine = open_engine(path)
        except DeblurError as error:
            rejections.append(f"{path.name}: {error.what}")
            continue
        trial_size = _fit(size, engine.spec) if in_tiles else size
        if pixels not in ("auto", engine.spec.pixels):
            engine.close()
        elif reason := rejection_reason(engine.spec, trial_size) or _failure_reason(engine, trial_size):
            engine.close()
            rejections.append(f"{path.name}: {reason}")
        else:
            engines[path.name] = engine
    return engines, rejections


def _fit(size: Size, spec: EngineSpec) -> Size:
    """Return the size (width, height) nearest to `size` that an engine takes."""
    (min_width, max_width), (min_height, max_height) = spec.width, spec.height
    return min(max(size[0], min_width), max_width), min(max(size[1], min_height), max_height)


def rejection_reason(spec: EngineSpec, size: Size) -> str:
    """Return why an engine may not be chosen for frames of `size` (width, height); empty if it may be chosen."""
    if not spec.accepts(width=size[0], height=size[1]):
        return f"does not accept frames of {size[0]}x{size[1]}"
    if spec.precision == "fp32":
        return ""
    if spec.loss_db is None or spec.budget_db is None:
        return "its loss in dB was not measured"
    return f"loses {spec.loss_db:.2f} dB, its budget is {spec.budget_db:.2f}" if spec.loss_db > spec.budget_db else ""


def is_for_cpus_on_gpu(engine: Engine) -> bool:
    """Return whether an engine has the INT8 layout of CPUs, which a GPU computes in float, and runs on a GPU."""
    return engine.spec.precision == "int8_cpu" and engine.provider in GPU_PROVIDERS


def _failure_reason(engine: Engine, size: Size) -> str:
    """Return why an engine fails on a frame of this width and height; empty if it does not fail."""
    try:
        engine.infer(trial_frame(size, engine.spec.pixels))
    except DeblurError as error:
        return error.what
    return ""


def _cache_path() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deblur" / "engines.json"


def _read_cache(path: Path) -> dict[str, str]:
    """Return the cached choices: cache key to file name; empty if the cache is missing or damaged."""
    try:
        values = read_json(path)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; empty for one that does not exist or cannot be read."""
    try:
        return sha256(path)
    except OSError:
        return ""


def _cache_key(paths: Sequence[Path], size: Size, settings: Sequence[object]) -> str:
    """Return a hash of everything that may change the choice."""
    libraries = []
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            libraries.append((name, version(name)))
    files = [(file.name, _digest(file)) for path in paths for file in (path, sidecar_path(path))]
    values = (platform.machine(), platform.node(), os.cpu_count(), libraries, files, size, tuple(map(str, settings)))
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
