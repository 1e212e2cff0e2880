"""What the benchmarks run: engines by name, frames by name, all on equal terms."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.assets import DEMO_BLURRED
from runtime.engines import PROVIDERS, Engine, Mode, open_backend, resolve_engine
from runtime.errors import UsageError
from runtime.frame import Pixels, Size
from runtime.sources import open_source

FRAMES = 32
"""Distinct frames that are put to engines in turn; more would measure how fast memory is filled."""


def opened(name: str, *, threads: int = 0, mode: Mode = "latency") -> Engine:
    """`FILE` or `FILE@PROVIDER`, where FILE may be the name of a bundled engine.

    Raises UsageError for a provider that is not known, and as `open_backend` does.
    """
    path, _, provider = name.partition("@")
    wanted = next((each for each in PROVIDERS if each == (provider or "auto")), None)
    if wanted is None:
        raise UsageError(f"no such provider: {provider}", hint=f"use one of {', '.join(PROVIDERS)}")
    return open_backend(resolve_engine(path), provider=wanted, threads=threads, mode=mode)


def resolved(name: str, engine: Engine) -> str:
    """The name that opens the same again without a trial: `auto` may choose otherwise the next time."""
    provider = getattr(engine, "provider", None)
    return name if provider is None else f"{name.partition('@')[0]}@{provider}"


def labels(names: list[str]) -> list[str]:
    """What tables call engines: `FILE@PROVIDER`, with its folder where files in two are called alike."""
    files = [Path(name.partition("@")[0]) for name in names]
    alike = Counter(path.name for path in set(files))
    short = ["/".join(path.parts[-2:] if alike[path.name] > 1 else path.parts[-1:]) for path in files]
    return numbered([label + "".join(name.partition("@")[1:]) for label, name in zip(short, names, strict=True)])


def numbered(names: list[str]) -> list[str]:
    """The same names, but `NAME #2`, `NAME #3` where one comes again."""
    seen: Counter[str] = Counter()
    told = []
    for name in names:
        seen[name] += 1
        told.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return told


def facts(name: str, engine: Engine) -> dict[str, Any]:
    """Which engine this is: its file by its hash, not by its name alone."""
    content = resolve_engine(name.partition("@")[0]).read_bytes()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "precision": engine.spec.precision,
        "backend": engine.backend,
        "slots": engine.slots,
    }


def frames(source: str, size: Size, *, count: int = FRAMES) -> list[Pixels]:
    """uint8[1, H, W, 3] BGR each: of `synthetic` noise, of the demo `clip`, or of a video or pictures, resized.

    Raises InputError if the source cannot be read.
    """
    width, height = size
    if source == "synthetic":
        noise = np.random.default_rng(0)
        return [noise.integers(0, 256, (1, height, width, 3), dtype=np.uint8) for _ in range(min(count, 8))]
    with closing(open_source(str(DEMO_BLURRED) if source == "clip" else source)) as opened_source:
        return list(itertools.islice(_resized(iter(opened_source), size), count))


def _resized(taken: Iterator[Any], size: Size) -> Iterator[Pixels]:
    for frame in taken:
        same = frame.size == size
        yield np.ascontiguousarray(
            frame.pixels if same else cv2.resize(frame.pixels, size, interpolation=cv2.INTER_AREA)
        )[np.newaxis]
