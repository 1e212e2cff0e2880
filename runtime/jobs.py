"""The jobs of a run, each a source with its outputs, and the files that they may not share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from runtime.errors import UsageError
from runtime.files import output_error, partial_name, set_aside_name
from runtime.image_files import IMAGE_SUFFIXES
from runtime.json_text import read_json
from runtime.options import RunOptions
from runtime.sidecar import sidecar_path
from runtime.sinks import NULL, STDOUT, existing_output, is_video_output, unfinished_output
from runtime.sinks.video import SUFFIXES
from runtime.urls import is_url

_MAX_STATISTICS_BYTES = 1 << 24
"""Size above which an existing file cannot be the statistics of an earlier run."""


def pair_sources(options: RunOptions) -> Iterator[tuple[str, list[str]]]:
    """Yield each source with its outputs; raises UsageError if they do not fit together."""
    sources, outputs = options.sources, list(options.outputs)
    if len(sources) == 1:
        yield sources[0], outputs
        return
    if options.show or not (outputs or options.serve):
        raise UsageError(
            "a window shows one source", hint="give each --source an --out, or --serve a page, and leave out --show"
        )
    if outputs in ([NULL], []):
        outputs = [NULL] * len(sources)
    if len(outputs) != len(sources):
        raise UsageError(f"{len(sources)} sources and {len(outputs)} outputs", hint="give each --source an --out")
    for source, output in zip(sources, outputs, strict=True):
        yield source, [output]


def require_distinct_files(options: RunOptions, engine: Path) -> None:
    """Raise UsageError if a file that the run writes would replace another file of the run; opens nothing."""
    sources = {_real(source) for source in options.sources if os.path.exists(source)}  # noqa: PTH110 - False for too long names
    written: set[str] = set()
    for output in options.outputs:
        files = set(_files_of(output))
        if files & sources:
            raise UsageError("output is the source", output, hint="give another --out")
        if files & written:
            raise UsageError("two outputs are the same", output, hint="give each --out a name of its own")
        written |= files
    if options.stats:
        _require_place_of_statistics(options.stats, options, sources | written | _engine_files(engine))


def _engine_files(engine: Path) -> set[str]:
    return {_real(engine), _real(sidecar_path(engine))}


def _files_of(output: str) -> Iterable[str]:
    """Return what an output writes: real paths, those of an unfinished video included, or an address."""
    if output == NULL:
        return ()
    if output == STDOUT or output.startswith("@") or is_url(output):
        return (output,)
    path = Path(output)
    if not path.name:  # `.` and `/` are folders
        return (_real(path),)
    partial = partial_name(path)
    before = set_aside_name(path)
    return map(_real, (path, partial, before, partial.with_name(f"{partial.name}.json")))


def _real(path: str | Path) -> str:
    return os.path.realpath(path)


def _require_place_of_statistics(stats: Path, options: RunOptions, taken: set[str]) -> None:
    """Raise UsageError unless `stats` is free or holds statistics of an earlier run that may be replaced."""
    hint = "give another --stats"
    if stats.suffix.lower() in SUFFIXES | IMAGE_SUFFIXES:  # perhaps an image or segment of this run
        raise UsageError(f"statistics are JSON, not {stats.suffix}", stats, hint=f"{hint}, such as stats.json")
    if _real(stats) in taken:
        raise UsageError("statistics would replace a source, an output or the engine", stats, hint=hint)
    if not os.path.exists(stats):  # noqa: PTH110
        return
    if not stats.is_file():
        raise UsageError("statistics need a regular file", stats, hint=hint)
    if not _is_statistics(stats):
        raise UsageError("statistics would replace another file", stats, hint=f"{hint}, or remove it")
    if options.overwrite is False:
        raise UsageError("statistics exist", stats, hint=f"{hint}, or leave out -n")


def _is_statistics(path: Path) -> bool:
    """Whether a file is empty or was written by `--stats`; raises OutputError if it cannot be read."""
    try:
        size = path.stat().st_size
        values = read_json(path) if 0 < size <= _MAX_STATISTICS_BYTES else None
    except OSError as error:
        raise output_error(path, error) from error
    except ValueError:
        return False
    return size == 0 or (isinstance(values, dict) and {"schema", "engine", "backend"} <= values.keys())


def is_finished(outputs: list[str]) -> bool:
    """Return whether all outputs of a job exist, and none of them has an unfinished file of a later run beside it."""
    return bool(outputs) and all(
        os.path.isfile(output) and not unfinished_output(output)  # noqa: PTH113 - False for names that are too long
        for output in outputs
    )


def require_replaceable(outputs: list[str], options: RunOptions, *, is_resumable: bool) -> None:
    """Ask before the outputs of a job replace files; raises UsageError if they may not.

    `is_resumable` says whether `--resume` can continue an unfinished file.
    """
    for output in outputs:
        _require_replaceable(output, options, is_resumable=is_resumable)


def _require_replaceable(output: str, options: RunOptions, *, is_resumable: bool) -> None:
    if options.segment_s and is_video_output(output):
        return  # a recording never replaces files: it takes the next free numbers
    existing = existing_output(output)
    is_unfinished = existing is not None and existing != Path(output)
    if existing is None or (is_unfinished and options.resume):
        return
    what, question = "output exists", f"{existing} exists; replace it?"
    hint = "add -y to replace it, or give another --out"
    if is_unfinished and is_resumable:
        what, question = "unfinished output exists", f"{existing} exists, and --resume continues it; start again?"
        hint = "add --resume to continue it, -y to start again, or give another --out"
    if not (_ask(question) if options.overwrite is None else options.overwrite):
        raise UsageError(what, existing, hint=hint)


def _ask(question: str) -> bool:
    """Ask on a terminal; elsewhere the answer is no."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
