"""Result files: one envelope, one strict shape for each kind (schema.json), and nothing that tells whose machine."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness.system_info import facts
from runtime.errors import InputError, OutputError, UsageError
from runtime.files import unwritable, write_json

SCHEMA = 1
"""Version of the files; it grows when a field changes its meaning or goes away."""
Kind = Literal["latency", "quality", "peers", "scaling"]
RESULTS = Path(__file__).parents[1] / "results"
"""Published results: a folder for each device, named after `machine.device`."""


def prepare(path: Path | None) -> None:
    """Fail before hours of measuring, not after: raises UsageError or OutputError if results could not be written."""
    if path is None:
        return
    _validator()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error


def write_results(
    path: Path,
    *,
    kind: Kind,
    results: Mapping[str, Any],
    command: str,
    machine: Mapping[str, Any] | None = None,
) -> None:
    """Write a checked result file; the file holds all of it or what it held before.

    `command`: as `command_line` gives it. `machine`: `benchmarks.machine.facts()` of before the run, taken now
    if left out. Raises OutputError if the results do not fit the schema or cannot be written, UsageError if
    jsonschema is not installed.
    """
    document = {
        "schema": SCHEMA,
        "kind": kind,
        "command": command,
        "made_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": dict(machine if machine is not None else facts()),
        "results": dict(results),
    }
    try:
        document = json.loads(json.dumps(document, allow_nan=False))  # tuples are lists in files
    except ValueError as error:
        raise OutputError(f"results are not JSON ({error})", path, hint="this is a bug; report it") from error
    if wrong := complaint(document):
        raise OutputError(f"results do not fit the schema ({wrong})", path, hint="this is a bug; report it")
    write_json(path, document)


def read_results(path: Path) -> dict[str, Any]:
    """A result file's envelope; raises InputError if it is not one."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"not a result file ({error})", path, hint="give one that the benchmarks wrote") from error
    if wrong := complaint(document):
        raise InputError(f"not a result file of this version ({wrong})", path, hint="measure again")
    assert isinstance(document, dict)
    return document


def complaint(document: object) -> str:
    """What of a document does not fit the schema, in one line; empty if all does."""
    from jsonschema.exceptions import best_match  # noqa: PLC0415 - only who writes or reads files needs it

    error = best_match(_validator().iter_errors(document))
    return "" if error is None else f"{error.json_path}: {' '.join(error.message.split())[:300]}"


def command_line(module: str, arguments: Sequence[str] | None = None) -> str:
    """What was typed, as it may be published: `python -m MODULE ...` with no place of this machine in it.

    `arguments`: None for those of this process. Paths under the working directory become relative to it, of others
    the name is kept; of addresses only the scheme.
    """
    given = sys.argv[1:] if arguments is None else arguments
    return shlex.join(["python", "-m", module, *("=".join(map(_shown, text.split("="))) for text in given)])


def _shown(text: str) -> str:
    if "://" in text:
        return text.partition("://")[0] + "://"
    path = Path(text.lstrip("@"))
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return path.name if path.is_absolute() or ".." in path.parts else text


def _validator() -> Any:
    try:
        from jsonschema import Draft202012Validator  # noqa: PLC0415 - as above
    except ImportError as error:
        hint = "pip install 'deblur-toolkit[bench]', or leave out --json"
        raise UsageError("result files need jsonschema, which is not installed", hint=hint) from error
    return Draft202012Validator(json.loads(Path(__file__).with_name("schema.json").read_text()))
