"""The gate of an install: engines must give the PSNR that they gave where they were made, and no less than before.

An `.onnx` engine takes the test images as they are. A plan is often built for frames of one size, to which smaller
images are extended; that changes the result near their borders. So a plan is compared with its `.onnx` file on the
same extended images, and the `.onnx` file with the machine that made the bundle.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from statistics import mean

from runtime.engines import Provider, TiledEngine, open_backend, open_engine
from runtime.engines.onnx import OnnxEngine
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
        return _mean_psnr_db(restore, bundle_folder)


def _mean_psnr_db(restore: TiledEngine, bundle_folder: Path) -> float:
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


def require_same_quality(bundle_folder: Path, manifest: Manifest, provider: Provider) -> dict[str, float]:
    """Return the PSNR in dB of each ONNX engine on this machine.

    Raises EngineError if it differs from the manifest's, InputError if there is no engine.
    """
    if not manifest.engines:
        raise InputError("bundle has no engines", hint=_HINT)
    results: dict[str, float] = {}
    for name in manifest.engines:
        here_db = results[name] = measure_psnr_db(bundle_folder / name, bundle_folder, provider)
        there_db = manifest.gate_psnr_db[name]
        if not abs(here_db - there_db) <= TOLERANCE_DB:  # true for NaN, too
            raise EngineError(
                f"engine gives {here_db:.2f} dB here and gave {there_db:.2f} dB where it was made",
                name,
                hint="nothing was changed; try another --provider, and report it",
            )
    return results


def require_faithful_plan(plan: Path, bundle_folder: Path) -> float:
    """Return the PSNR in dB of a plan; raises EngineError if its ONNX file gives another on the same frames."""
    backend = open_backend(plan)
    with TiledEngine(backend, path=plan) as restore:
        plan_db = _mean_psnr_db(restore, bundle_folder)
    reference = OnnxEngine(plan.with_suffix(".onnx"))
    # With the sizes of the plan, `TiledEngine` extends or cuts the images for both in the same way.
    reference.spec = dataclasses.replace(reference.spec, width=backend.spec.width, height=backend.spec.height)
    with TiledEngine(reference, path=plan) as restore:
        onnx_db = _mean_psnr_db(restore, bundle_folder)
    if not abs(plan_db - onnx_db) <= TOLERANCE_DB:
        raise EngineError(
            f"plan gives {plan_db:.2f} dB here, its ONNX file {onnx_db:.2f} dB on the same frames",
            plan.name,
            hint="nothing was changed; leave out --plan, and report it",
        )
    return plan_db


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
