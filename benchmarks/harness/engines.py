"""Engines and frames by name, opened the same way for every benchmark."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.assets import DEMO_BLURRED
from runtime.colour import BT709
from runtime.engines import PROVIDERS, Engine, Mode, open_backend, resolve_engine
from runtime.errors import UsageError
from runtime.frame import Frame, Pixels, Size
from runtime.sources import open_source
from runtime.yuv420 import Yuv420

MAX_FRAMES = 32
"""Number of distinct frames of a run. Engines get them in a cycle; more would measure how fast memory is read."""
_SYNTHETIC_FRAMES = 8


def open_named_engine(name: str, *, threads: int = 0, mode: Mode = "latency") -> Engine:
    """Open `FILE` or `FILE@PROVIDER`, where FILE may also be the name of a bundled engine.

    Raises UsageError for an unknown provider, and the errors of `open_backend`.
    """
    path, suffix = split_provider(name)
    provider = next((known for known in PROVIDERS if known == (suffix or "auto")), None)
    if provider is None:
        raise UsageError(f"no such provider: {suffix}", hint=f"use one of {', '.join(PROVIDERS)}")
    return open_backend(resolve_engine(path, provider), provider=provider, threads=threads, mode=mode)


def split_provider(name: str) -> tuple[str, str]:
    """Return the file and the provider of `FILE@PROVIDER`; an existing path with an `@` needs no provider."""
    path, _, provider = name.rpartition("@")
    return (path, provider) if path and not Path(name).exists() else (name, "")


def pin_provider(name: str, engine: Engine) -> str:
    """Return the name that opens the same engine again. `auto` runs a trial, which may choose another provider.

    The provider of a plan, such as `tensorrt`, is not part of a name: a plan has no choice of providers.
    """
    return f"{split_provider(name)[0]}@{engine.provider}" if engine.provider in PROVIDERS else name


def label_engines(names: list[str]) -> list[str]:
    """Return unique labels for tables: `FILE@PROVIDER`, with the folder where two files have the same name."""
    parts = [split_provider(name) for name in names]
    files = [Path(path) for path, _ in parts]
    count_by_name = Counter(path.name for path in set(files))
    short = ["/".join(path.parts[-2:] if count_by_name[path.name] > 1 else path.parts[-1:]) for path in files]
    return number_duplicates(
        [f"{label}@{provider}" if provider else label for label, (_, provider) in zip(short, parts, strict=True)]
    )


def number_duplicates(names: list[str]) -> list[str]:
    """Return the names with ` #2`, ` #3` appended to the second and third occurrence of the same name."""
    count_by_name: Counter[str] = Counter()
    labels = []
    for name in names:
        count_by_name[name] += 1
        labels.append(name if count_by_name[name] == 1 else f"{name} #{count_by_name[name]}")
    return labels


def describe_engine(name: str, engine: Engine) -> dict[str, Any]:
    """Return the identity of an engine for a result file: the SHA-256 of its file, precision, backend and slots."""
    path, provider = split_provider(name)
    content = resolve_engine(path, provider).read_bytes()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "precision": engine.spec.precision,
        "backend": engine.backend,
        "slots": engine.slots,
    }


def load_frames(source: str, size: Size, *, count: int = MAX_FRAMES) -> list[Pixels]:
    """Return up to `count` frames, uint8[1, H, W, 3] BGR each, resized to `size` (width, height).

    `source`: `synthetic` for noise, `clip` for the demo clip, or the path of a video or of a folder of images.
    Raises InputError if the source cannot be read.
    """
    width, height = size
    if source == "synthetic":
        random = np.random.default_rng(0)
        shape = (1, height, width, 3)
        return [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(min(count, _SYNTHETIC_FRAMES))]
    with closing(open_source(str(DEMO_BLURRED) if source == "clip" else source)) as clip:
        return list(itertools.islice(_resize(iter(clip), size), count))


def convert_frames(frames: Sequence[Pixels], engine: Engine) -> list[Pixels]:
    """Return frames, uint8[1, H, W, 3] BGR each, in the form that an engine takes.

    Raises UsageError if it takes planes and width or height is odd.
    """
    if engine.spec.pixels == "bgr":
        return list(frames)
    if any(side % 2 for frame in frames for side in frame.shape[1:3]):
        raise UsageError("planes of 4:2:0 have an even width and height", hint="give another --size")
    return [Yuv420.from_bgr(frame[0], BT709).planes[np.newaxis] for frame in frames]


def anonymize_source(source: str) -> str:
    """Return the source as a result file may state it: `clip`, `synthetic`, or `other` for a path of the user."""
    return source if source in ("clip", "synthetic") else "other"


def _resize(frames: Iterator[Frame], size: Size) -> Iterator[Pixels]:
    for frame in frames:
        has_size = frame.size == size
        pixels = frame.bgr if has_size else cv2.resize(frame.bgr, size, interpolation=cv2.INTER_AREA)
        yield np.ascontiguousarray(pixels, np.uint8)[np.newaxis]
