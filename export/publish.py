"""Publishing of an export: what it depends on, whether its folder can take the files, and all files at once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from export.config import ExportConfig
from export.foreign.reader import list_files
from export.plan.builder import describe_machine
from export.step_cache import compute_digest, compute_folder_digest
from runtime.cli import say
from runtime.errors import OutputError, UsageError
from runtime.files import lock_folder
from runtime.spec import variant_name
from train.weights import config_path, needs_config, weights_path

ROOT = Path(__file__).parent.parent
REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
PARETO = "pareto.png"
STEPS = ".steps"
"""Folder of the step cache."""
_LOCK = "lock"
_UNFINISHED = ".unfinished-"
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def is_foreign(checkpoint: Path) -> bool:
    """Return whether a checkpoint is an ONNX file of another exporter."""
    return checkpoint.suffix.lower() == ".onnx"


def list_input_files(checkpoint: Path) -> list[Path]:
    """Return the files of a checkpoint, those that do not exist too; raises EngineError for a damaged ONNX file."""
    if is_foreign(checkpoint):
        return list_files(checkpoint)
    return [weights_path(checkpoint), *([config_path(checkpoint)] if needs_config(checkpoint) else [])]


def compute_inputs_digest(checkpoint: Path, config: ExportConfig) -> str:
    """Return the digest of everything that an export depends on: weights, frames, settings, versions, and our code."""
    settings = (
        config.name,
        config.licence,
        config.network,
        dict(config.network_options),
        config.foreign,
        config.work_scale,
        config.precisions,
        config.pixels,
        config.interfaces,
        config.calibration_method,
        config.int8_budget_db,
        config.fp16_budget_db,
        config.force,
    )
    plans = (config.plan, describe_machine(config.plan.flavour)) if config.plan else ()
    return compute_digest(
        *(path.read_bytes() for path in list_input_files(checkpoint)),
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


def list_names(config: ExportConfig) -> list[str]:
    """Return the names of the files that an export publishes; those of plans only if it builds plans."""
    variants = [variant_name(precision, pixels) for pixels in config.pixels for precision in config.precisions]
    engines = [f"{config.name}_{variant}" for variant in variants]
    names = [f"{engine}.onnx" for engine in engines]
    for interface in config.interfaces:
        names += [f"{config.name}_{precision}_{interface}.onnx" for precision in config.precisions]
    if config.plan:
        names += [f"{engine}{suffix}" for engine in engines for suffix in (".plan", ".plan.json")]
    return [*names, PARETO, REPORT_MARKDOWN, REPORT_JSON]


def refuse_other_files(out: Path, config: ExportConfig, *, former: set[str], overwrite: bool) -> None:
    """Check that no file of the export's names is in the output folder unless an export wrote it; nothing is written.

    `former`: names of the files that the report in the folder lists; empty without a report. Raises UsageError if there
    is another file, unless `overwrite` is set; OutputError if there is a folder of its name.
    """
    existing = [out / name for name in list_names(config) if (out / name).exists()]
    for path in existing:
        if path.is_dir():
            raise OutputError("a folder has the name of an output file", path, hint="rename it, or give another --out")
    is_of_an_export = not former and (out / STEPS).is_dir()  # one that was killed, or whose report is damaged
    if overwrite or is_of_an_export:
        return
    own = {REPORT_JSON, *former, *([PARETO, REPORT_MARKDOWN] if former else [])}
    for path in existing:
        if path.name not in own:
            hint = "give another --out, or add -y to replace it"
            raise UsageError("this file exists, and no export wrote it", path, hint=hint)


@contextmanager
def reserve_folder(out: Path) -> Iterator[None]:
    """Create the output folder and reserve it for this process, and remove what a killed process left unfinished.

    Raises UsageError if another export writes there, and OutputError if nothing can be written in it.
    """
    with lock_folder(out / STEPS, _LOCK, busy="another export writes into this folder"):
        for folder in out.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(folder, ignore_errors=True)
        yield


def publish(out: Path, files: dict[str, bytes], *, obsolete: Iterable[str]) -> None:
    """Write files into a folder and then remove the `obsolete` ones.

    All files are written under a temporary name before the first one is renamed.
    """
    with tempfile.TemporaryDirectory(dir=out, prefix=_UNFINISHED) as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        for file in files:
            (folder / file).replace(out / file)
    for file in obsolete:
        say(f"removed {file}, which the export before this one wrote")
        (out / file).unlink(missing_ok=True)
