"""Whether engines give on this machine what they gave where they were made, and no less than those before."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from statistics import mean

import numpy as np

from runtime.engines import Provider, open_engine
from runtime.errors import EngineError
from runtime.image_files import read_image
from runtime.install.bundle import BLURRED, SHARP, Manifest
from runtime.metrics import IDENTICAL_DB, psnr_db

SAME_DB = 0.1
"""By which libraries and machines may differ; a wrong colour order or a broken kernel differs by far more."""
WORSE_DB = 0.05
"""By which the best engine may be worse than the best one before."""


def measured(engine: Path, frames: Path, provider: Provider) -> float:
    """Mean PSNR in dB of an engine on the gate's frames; raises EngineError where it does not run here."""
    opened = open_engine(engine, provider=provider)
    try:
        scores = []
        for path in sorted((frames / BLURRED).iterdir()):
            restored = opened.infer(read_image(path)[np.newaxis])[0]
            scores.append(min(psnr_db(restored, read_image(frames / SHARP / path.name)), IDENTICAL_DB))
    finally:
        opened.close()
    return mean(scores)


def require_good(folder: Path, manifest: Manifest, engines: list[Path], provider: Provider) -> dict[str, float]:
    """PSNR in dB of each engine here; raises EngineError where one gives something else than where it was made."""
    found: dict[str, float] = {}
    for engine in engines:
        here = found[engine.name] = measured(engine, folder, provider)
        there = manifest.gate_psnr_db[engine.with_suffix(".onnx").name]
        if not abs(here - there) <= SAME_DB:  # also if it is no number
            raise EngineError(
                f"gives {here:.2f} dB here and gave {there:.2f} dB where it was made",
                engine.name,
                hint="nothing was changed; try another --provider, and report it",
            )
    return found


def require_no_worse(best_db: float, current: Path, frames: Path, provider: Provider) -> None:
    """Raise EngineError where the best engine is worse than the best of the current version on the same frames."""
    before: dict[str, float] = {}
    for engine in sorted(current.glob("*.onnx")):
        with suppress(EngineError):  # what no longer runs is no reason to keep it
            before[engine.name] = measured(engine, frames, provider)
    if before and best_db < max(before.values()) - WORSE_DB:
        name = max(before, key=lambda each: before[each])
        raise EngineError(
            f"the new engines give {best_db:.2f} dB, {name} of the current version {before[name]:.2f} dB",
            current,
            hint="nothing was changed; --force to install it all the same",
        )
