"""`deblur models add`: an export is checked and copied into the folder of models."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from runtime.engines.names import BUNDLED_NAMES
from runtime.engines.variants import YUV420_SUFFIX
from runtime.errors import EngineError, InputError, UsageError
from runtime.files import output_error, sha256, sync_folder
from runtime.json_text import read_json
from runtime.model_folder import NAME_PATTERN, models_folder
from runtime.models.listing import read_spec
from runtime.sidecar import sidecar_path
from runtime.spec import FLOAT_NCHW

REPORT = "report.json"
_FURTHER = ("report.md", "pareto.png")
"""Files of an export that are copied without a hash: they are for people."""
_ENGINES = (".onnx", ".plan")


def add_model(source: Path, *, name: str | None, replace: bool) -> Path:
    """Copy an export, or one engine file of it, into a folder of its own below the folder of models; return that.

    `name`: name of the model; None for the name of the export's folder, or of the file. Every file with a hash in
    `report.json` must have it, and every engine must be readable. Raises InputError, EngineError, UsageError, or
    OutputError; nothing is changed then.
    """
    files = _list_export(source) if source.is_dir() else _list_engine(source)
    model = name or (source.resolve().name if source.is_dir() else source.stem)
    _require_name(model)
    target = models_folder() / model
    if target.exists() and not replace:
        raise UsageError("a model has this name", target, hint="give another name, or replace it with -y")
    for path in files:
        if path.suffix.lower() in _ENGINES and not path.stem.endswith(FLOAT_NCHW):
            read_spec(path)
    try:
        _copy(files, target)
    except OSError as error:
        raise output_error(target, error) from error
    return target


def _require_name(name: str) -> None:
    if name in BUNDLED_NAMES:
        raise UsageError(f"{name} is the name of a bundled engine", hint="give another name")
    if not NAME_PATTERN.fullmatch(name):
        what = f"a model's name consists of letters, digits, dots, _ and -, got {name!r}"
        raise UsageError(what, hint="give another name")


def _list_export(folder: Path) -> list[Path]:
    """Return the files of an export, after their hashes were checked."""
    hashes = _read_hashes(folder)
    if not hashes:
        raise InputError("the folder has no export in it", folder, hint=f"give a folder with {REPORT}, or an engine")
    paths = [folder / name for name in hashes]
    for path in paths:
        _require_hash(path, hashes[path.name])
    return [*paths, folder / REPORT, *(folder / name for name in _FURTHER if (folder / name).is_file())]


def _list_engine(path: Path) -> list[Path]:
    """Return an engine file and what belongs to it: the sidecar of a plan with its ONNX file, the twin for planes."""
    if not path.is_file():
        raise InputError("no such export or engine", path, hint="check the path")
    if path.suffix.lower() not in _ENGINES:
        raise InputError("this file is no engine", path, hint="give an .onnx file, a .plan, or the folder of an export")
    files = [path]
    if path.suffix.lower() == ".plan":
        files += [sidecar_path(path), *(file for file in [path.with_suffix(".onnx")] if file.is_file())]
    twin = path.with_name(f"{path.stem}{YUV420_SUFFIX}{path.suffix}")
    files += [twin] if path.suffix.lower() == ".onnx" and twin.is_file() else []
    hashes = _read_hashes(path.parent)
    for file in files:
        if file.name in hashes:
            _require_hash(file, hashes[file.name])
    return files


def _read_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files of an export by name; empty without a report."""
    path = folder / REPORT
    try:
        report: Any = read_json(path)
        hashes = {str(name): str(value) for name, value in report["files"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("the report cannot be read", path, hint="export again") from error
    if any(Path(name).name != name for name in hashes):
        raise InputError("the report names files outside of its folder", path, hint="export again")
    return hashes


def _require_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise EngineError(f"a file of the export is missing, which {REPORT} names", path, hint="export again")
    if sha256(path) != expected:
        raise EngineError(f"file is not the one of {REPORT} (other SHA-256)", path, hint="export again")


def _copy(files: list[Path], target: Path) -> None:
    """Copy files into a new folder, and then put it into the place of `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unfinished-") as name:
        new, old = Path(name) / "new", Path(name) / "old"
        new.mkdir()
        for path in files:
            shutil.copyfile(path, new / path.name)
        sync_folder(new)
        if target.exists():
            target.replace(old)
        new.replace(target)
    sync_folder(target.parent)
