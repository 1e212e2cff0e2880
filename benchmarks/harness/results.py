"""Result files: one envelope, one strict schema for each kind (schema.json), and nothing that identifies a user."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness.system_info import describe_machine
from runtime.errors import InputError, OutputError, UsageError
from runtime.files import output_error, write_json
from runtime.json_text import read_json
from runtime.libraries import install_hint

SCHEMA = 1
"""Version of the result files; it grows when a field changes its meaning or is removed."""
Kind = Literal["latency", "quality", "peers", "file_jobs", "scaling"]
RESULTS = Path(__file__).parents[1] / "results"
"""Published results: a folder for each device, named after `machine.device`."""


def require_writable(path: Path | None) -> None:
    """Check before a long measurement that its results can be written; None means that no file is wanted.

    Creates the folder of the file. Raises UsageError if jsonschema is not installed, OutputError if the folder
    cannot be created, or the path is a folder.
    """
    if path is None:
        return
    _load_validator()
    if path.is_dir():
        raise OutputError("output is a folder", path, hint="give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error


def write_results(
    path: Path,
    *,
    kind: Kind,
    results: Mapping[str, Any],
    command: str,
    machine: Mapping[str, Any] | None = None,
) -> None:
    """Validate results and write them as one file. If that fails, an existing file keeps its content.

    `command`: from `format_command`. `machine`: from `describe_machine`, taken before the run; None takes it now.
    Raises OutputError if the results do not match the schema or cannot be written, UsageError if jsonschema is not
    installed.
    """
    document = {
        "schema": SCHEMA,
        "kind": kind,
        "command": command,
        "made_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": dict(machine if machine is not None else describe_machine()),
        "results": dict(results),
    }
    try:
        document = json.loads(json.dumps(document, allow_nan=False))  # converts tuples to lists
    except ValueError as error:
        raise OutputError(f"results are not JSON ({error})", path, hint="this is a bug; report it") from error
    if mismatch := find_schema_error(document):
        raise OutputError(f"results do not match the schema ({mismatch})", path, hint="this is a bug; report it")
    write_json(path, document)


def read_results(path: Path) -> dict[str, Any]:
    """Return the envelope and results of a file; raise InputError if it is not a result file of this version."""
    try:
        document: Any = read_json(path)
        json.dumps(document, allow_nan=False)  # Python reads NaN and infinity, which are not JSON
    except (OSError, ValueError) as error:
        raise InputError(f"not a result file ({error})", path, hint="give a file that a benchmark wrote") from error
    if mismatch := find_schema_error(document):
        raise InputError(f"not a result file of this version ({mismatch})", path, hint="measure again")
    assert isinstance(document, dict)
    return document


def find_schema_error(document: object) -> str:
    """Return the most relevant mismatch of a document with the schema in one line; empty if it matches."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - needed only to write or read files

    error = best_match(_load_validator().iter_errors(document))
    return "" if error is None else f"{error.json_path}: {' '.join(error.message.split())[:300]}"


def format_command(module: str, arguments: Sequence[str] | None = None) -> str:
    """Return `python -m MODULE ...` as it may be published, without absolute paths and addresses.

    `arguments`: None for those of this process. A path under the working directory becomes relative to it, any other
    absolute path is reduced to its file name, and an address to its scheme.
    """
    words = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", module, *("=".join(map(_anonymize, word.split("="))) for word in words)])


def _anonymize(text: str) -> str:
    if "://" in text:
        return text.partition("://")[0] + "://"
    path = Path(text.lstrip("@"))
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return path.name if path.is_absolute() or ".." in path.parts else text


def _load_validator() -> Any:
    try:
        from jsonschema import Draft202012Validator  # noqa: PLC0415 - needed only to write or read files
    except ImportError as error:
        hint = f"{install_hint('jsonschema')}, or leave out --json"
        raise UsageError("result files need jsonschema, which is not installed", hint=hint) from error
    return Draft202012Validator(json.loads(Path(__file__).with_name("schema.json").read_text()))
