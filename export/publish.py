"""Publishing of an export: whether one is needed, whether it may replace the one before, and all files at once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export.config import ExportConfig
from export.plan.builder import describe_machine
from export.step_cache import compute_digest, compute_folder_digest
from runtime.errors import EngineError

ROOT = Path(__file__).parent.parent
WEIGHTS = "generator.safetensors"
REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
MAX_REGRESSION_DB = 0.005
"""PSNR by which a new model may be worse than the one that it replaces, because of rounding."""
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def find_weights(checkpoint: Path) -> Path:
    """Return the weights of a checkpoint, as `train.checkpoint.weights_path` does, without importing torch."""
    return checkpoint if checkpoint.suffix == ".safetensors" else checkpoint / WEIGHTS


def compute_inputs_digest(checkpoint: Path, config: ExportConfig) -> str:
    """Return the digest of everything that an export depends on: weights, frames, settings, versions, and our code."""
    weights = find_weights(checkpoint)
    settings = (
        config.name,
        config.precisions,
        config.calibration_method,
        config.int8_budget_db,
        config.fp16_budget_db,
        config.force,
    )
    plans = (config.plan, describe_machine(config.plan.flavour)) if config.plan else ()
    return compute_digest(
        weights.read_bytes(),
        weights.with_name("config.json").read_bytes(),
        compute_folder_digest(config.calibration),
        compute_folder_digest(config.pairs),
        repr(settings),
        repr(plans),
        compute_tools_digest(),
    )


def compute_tools_digest() -> str:
    """Return the digest of our code and of the versions of the packages that make engines."""
    code = [compute_folder_digest(ROOT / name) for name in ("export", "train/models", "runtime/engines")]
    code += [compute_folder_digest(ROOT / "runtime" / f"{name}.py") for name in ("metrics", "sidecar", "spec")]
    return compute_digest(*code, *(version(name) for name in _PACKAGES))


def is_unchanged(out: Path, inputs_sha256: str) -> bool:
    """Return whether a folder holds the undamaged files of an export with the same inputs."""
    before = read_report(out)
    if before.get("inputs_sha256") != inputs_sha256:
        return False
    files = [(out / name, sha256) for name, sha256 in before["files"].items()]
    return all(path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256 for path, sha256 in files)


def read_report(out: Path) -> dict[str, Any]:
    """Return `report.json` of an earlier export, or an empty dictionary if it is missing or unreadable."""
    try:
        report = json.loads((out / REPORT_JSON).read_text())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def refuse_regression(report: dict[str, Any], before: dict[str, Any], out: Path) -> None:
    """Raise EngineError if an engine of an earlier export in `out` is better than the new one on the same pairs."""
    if before.get("pairs_sha256") != report["pairs_sha256"]:
        return
    for name in report["engines"].keys() & before["engines"].keys():
        old_db, new_db = (entry["engines"][name]["spec"]["psnr_db"] for entry in (before, report))
        if new_db < old_db - MAX_REGRESSION_DB:
            raise EngineError(
                f"the new {name} engine is worse than the one it would replace ({new_db:.3f} dB, was {old_db:.3f} dB)",
                out,
                hint="keep the old engines, give another --out, or add --force",
            )


def publish(out: Path, files: dict[str, bytes], *, obsolete: set[str]) -> None:
    """Write files into a folder and then remove the `obsolete` ones.

    All files are written under a temporary name before the first one is renamed.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix=".unfinished-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        for file in files:
            (folder / file).replace(out / file)
    for file in obsolete:
        (out / file).unlink(missing_ok=True)
