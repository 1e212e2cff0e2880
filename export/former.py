"""The export that a folder holds already: whether it is up to date, and whether a new engine is worse than its own."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from export.publish import PARETO, REPORT_JSON, REPORT_MARKDOWN
from runtime.errors import EngineError
from runtime.files import sha256
from runtime.json_text import read_json
from runtime.spec import EngineSpec

MAX_REGRESSION_DB = 0.005
"""PSNR by which a new model may be worse than the one that it replaces, because of rounding."""


@dataclass(frozen=True, kw_only=True)
class FormerExport:
    """Contents of `report.json` of the export in a folder; all fields but the folder are empty without one."""

    folder: Path
    inputs_sha256: str = ""
    pairs_sha256: str = ""
    pairs: str = ""
    """Name of the folder of the pairs."""
    psnr_db: dict[str, float] = field(default_factory=dict)
    """PSNR of the engines by `EngineSpec.variant`."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of engines, plans and sidecars by name."""
    is_damaged: bool = False
    """Whether there is a `report.json` that cannot be read."""

    def is_unchanged(self, inputs_sha256: str) -> bool:
        """Return whether the folder holds the undamaged files of an export with these inputs."""
        if not self.inputs_sha256 or self.inputs_sha256 != inputs_sha256:
            return False
        has_report = all((self.folder / name).is_file() for name in (PARETO, REPORT_MARKDOWN))
        return has_report and all(map(self._is_as_written, self.files))

    def list_obsolete(self, name: str, kept: Collection[str]) -> list[str]:
        """Return the files of engines with this name that are not `kept`, unless somebody has changed them since."""
        obsolete = [file for file in self.files if file.startswith(f"{name}_") and file not in kept]
        return [file for file in obsolete if self._is_as_written(file)]

    def _is_as_written(self, name: str) -> bool:
        path = self.folder / name
        return path.is_file() and sha256(path) == self.files[name]

    def refuse_regression(self, spec: EngineSpec, *, pairs_sha256: str) -> None:
        """Raise EngineError if the engine of this precision and form was better on the same pairs than the new one."""
        old_db, new_db = self.psnr_db.get(spec.variant), spec.psnr_db
        if pairs_sha256 != self.pairs_sha256 or old_db is None or new_db is None:
            return
        if new_db < old_db - MAX_REGRESSION_DB:
            raise EngineError(
                f"the new {spec.variant} engine is worse than the one it would replace "
                f"({new_db:.3f} dB, was {old_db:.3f} dB)",
                self.folder,
                hint="keep the old engines, give another --out, or add --force",
            )

    def explain_missing_comparison(self, pairs_sha256: str) -> str:
        """Return why new engines cannot be compared with those in the folder; empty if they can, or if it has none."""
        if self.is_damaged:
            return f"{REPORT_JSON} of the engines before these cannot be read"
        if self.psnr_db and pairs_sha256 != self.pairs_sha256:
            return f"the engines before these were measured on other pairs ({self.pairs})"
        return ""


def read_former_export(folder: Path) -> FormerExport:
    """Return what `report.json` of an earlier export says; a missing or unreadable one is no error."""
    try:
        return _parse_report(read_json(folder / REPORT_JSON), folder)
    except (FileNotFoundError, NotADirectoryError):
        return FormerExport(folder=folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return FormerExport(folder=folder, is_damaged=True)


def _parse_report(report: Any, folder: Path) -> FormerExport:
    """Return the fields of a report; raises ValueError, KeyError, TypeError or AttributeError for any other JSON."""
    specs = {str(variant): entry["spec"] for variant, entry in report["engines"].items()}
    files = {str(name): str(sha256) for name, sha256 in report["files"].items()}
    if any(Path(name).name != name for name in files):  # files of an earlier export are removed by these names
        raise ValueError("a file is not in the folder")
    return FormerExport(
        folder=folder,
        inputs_sha256=str(report["inputs_sha256"]),
        pairs_sha256=str(report["pairs_sha256"]),
        pairs=", ".join(sorted({str(spec["measured_on"]) for spec in specs.values()})),
        psnr_db={variant: float(spec["psnr_db"]) for variant, spec in specs.items()},
        files=files,
    )
