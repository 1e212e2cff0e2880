"""The gate of an install: engines must give the PSNR that they gave where they were made, and no less than before."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from statistics import mean

from runtime.engines import Provider, open_engine
from runtime.errors import EngineError, InputError
from runtime.image_files import read_image
from runtime.install.bundle import BLURRED, SHARP, Manifest
from runtime.metrics import IDENTICAL_DB, psnr_db

TOLERANCE_DB = 0.1
"""Normal difference between libraries and machines; a wrong colour order or a broken kernel exceeds it by far."""
MAX_LOSS_DB = 0.05
"""Largest loss in PSNR of the best new engine against the best engine of the current version."""

_HINT = "make the bundle again; nothing was changed"


def measure_psnr_db(engine: Path, bundle_folder: Path, provider: Provider) -> float:
    """Return the mean PSNR in dB of an engine on the test images of a bundle.

    Raises EngineError if the engine does not run, InputError if test images are missing or damaged.
    """
    with open_engine(engine, provider=provider) as restore:
        scores = []
        for path in _list_images(bundle_folder):
            blurred, sharp = read_image(path), read_image(bundle_folder / SHARP / path.name)
            if blurred.shape != sharp.shape:
                raise InputError("test images of a pair differ in size", path.name, hint=_HINT)
            scores.append(min(psnr_db(restore(blurred), sharp), IDENTICAL_DB))
    return mean(scores)


def _list_images(bundle_folder: Path) -> list[Path]:
    """Return the blurred test images of a bundle; raises InputError if there is none, or if one has no partner."""
    blurred, sharp = bundle_folder / BLURRED, bundle_folder / SHARP
    paths = sorted(blurred.glob("*"))
    if not paths:
        raise InputError(f"bundle has no test images in {BLURRED}", hint=_HINT)
    for path in paths:
        if not (sharp / path.name).is_file():
            raise InputError(f"bundle has no sharp partner of the test image in {SHARP}", path.name, hint=_HINT)
    return paths


def require_same_quality(
    bundle_folder: Path, manifest: Manifest, engines: list[Path], provider: Provider
) -> dict[str, float]:
    """Return the PSNR in dB of each engine on this machine; raises EngineError if it differs from the manifest's."""
    results: dict[str, float] = {}
    for engine in engines:
        here_db = results[engine.name] = measure_psnr_db(engine, bundle_folder, provider)
        there_db = manifest.gate_psnr_db[engine.with_suffix(".onnx").name]
        if not abs(here_db - there_db) <= TOLERANCE_DB:  # true for NaN, too
            raise EngineError(
                f"engine gives {here_db:.2f} dB here and gave {there_db:.2f} dB where it was made",
                engine.name,
                hint="nothing was changed; try another --provider, and report it",
            )
    return results


def require_no_worse(best_db: float, current: Path, bundle_folder: Path, provider: Provider) -> None:
    """Raise EngineError if `best_db` is below the best engine of the current version on the same images."""
    results: dict[str, float] = {}
    for engine in sorted(current.glob("*.onnx")):
        with suppress(EngineError):  # an engine that no longer runs is no reason to keep its version
            results[engine.name] = measure_psnr_db(engine, bundle_folder, provider)
    if results and best_db < max(results.values()) - MAX_LOSS_DB:
        name = max(results, key=lambda name: results[name])
        raise EngineError(
            f"the new engines give {best_db:.2f} dB, {name} of the current version {results[name]:.2f} dB",
            current,
            hint="nothing was changed; --force installs them anyway",
        )
