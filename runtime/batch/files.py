"""Files of a batch: finding them, and the place of each output."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError, UsageError
from runtime.image_files import IMAGE_SUFFIXES, natural_order
from runtime.sinks import video


@dataclass(frozen=True)
class Task:
    """A file to restore, and its output."""

    source: str
    out: str


def find_tasks(patterns: Iterable[str], out: Path) -> list[Task]:
    """Return a task for each file of patterns, folders and file names, in natural order.

    Outputs have the tree of their sources. A file whose kind cannot be written gets `.mp4` after its own suffix:
    `a.avi` -> `a.avi.mp4`. Raises InputError if there is no file, UsageError if two files have the same output.
    """
    tasks: dict[str, Task] = {}
    for pattern in patterns:
        for path, root in _find_files(pattern):
            if path.resolve().is_relative_to(out.resolve()) and not root.resolve().is_relative_to(out.resolve()):
                continue  # an output of an earlier run
            target = out / path.relative_to(root)
            if path.suffix.lower() not in video.SUFFIXES | IMAGE_SUFFIXES:
                target = target.with_name(f"{target.name}.mp4")
            other = tasks.setdefault(str(target), Task(str(path), str(target)))
            if Path(other.source).resolve() != path.resolve():
                raise UsageError(
                    f"two sources have the output {target}", path, hint="give another --source, or one at a time"
                )
    if not tasks:
        raise InputError("no files found", ", ".join(patterns), hint="give a quoted pattern such as 'DIR/**/*.mp4'")
    return sorted(tasks.values(), key=lambda task: natural_order(Path(task.source)))


def _find_files(pattern: str) -> list[tuple[Path, Path]]:
    """Return the files of a pattern, folder or name, each with the folder that its output path is relative to."""
    path = Path(pattern)
    if path.is_dir():
        return [(file, path) for file in path.rglob("*") if file.is_file()]
    if path.is_file():
        return [(path, path.parent)]
    root = Path(*_parts_before_wildcard(path))
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute ones
    return [(Path(name), root) for name in names if Path(name).is_file()]


def _parts_before_wildcard(path: Path) -> list[str]:
    first = next((index for index, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts) - 1)
    return list(path.parts[:first])
