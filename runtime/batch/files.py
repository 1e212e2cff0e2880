"""Files of a batch: finding them, the place of each output, and the journal of finished ones."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError, UsageError
from runtime.files import output_error, sha256
from runtime.image_files import IMAGE_SUFFIXES, natural_order
from runtime.sinks import video

JOURNAL = "batch.jsonl"


@dataclass(frozen=True)
class Task:
    """A file to restore, and its output."""

    source: str
    out: str


@dataclass(frozen=True, kw_only=True)
class FinishedFile:
    """A line of the journal: an output, the content it was made from, and the engine that made it."""

    source: str
    out: str
    """Path relative to the folder of the journal, which may be moved."""
    source_size: int
    source_mtime_ns: int
    source_sha256: str
    engine_sha256: str
    out_size: int


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


class Journal:
    """Finished files of a folder, one JSON line each; written by one process, a line at a time."""

    def __init__(self, folder: Path, engine_sha256: str) -> None:
        self._folder, self._path, self._engine_sha256 = folder.resolve(), folder / JOURNAL, engine_sha256
        self._finished: dict[str, FinishedFile] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text() if self._path.exists() else ""
        except OSError as error:
            raise output_error(self._path, error) from error
        for line in text.splitlines():
            try:
                finished = FinishedFile(**json.loads(line))
            except (ValueError, TypeError):
                continue  # cut off by a power failure
            self._finished[finished.out] = finished

    def is_finished(self, task: Task) -> bool:
        """Whether the output exists and was made from the same content by the same engine.

        The content is read again only if the size or the time of the source has changed.
        """
        finished = self._finished.get(self._key(task))
        if (
            finished is None
            or finished.engine_sha256 != self._engine_sha256
            or _size(Path(task.out)) != finished.out_size
        ):
            return False
        stat = Path(task.source).stat()
        if (stat.st_size, stat.st_mtime_ns) == (finished.source_size, finished.source_mtime_ns):
            return True
        return stat.st_size == finished.source_size and sha256(Path(task.source)) == finished.source_sha256

    def may_write(self, task: Task) -> bool:
        """Whether the output does not exist, or an earlier run wrote it."""
        return self._key(task) in self._finished or not Path(task.out).exists()

    def _key(self, task: Task) -> str:
        return str(Path(task.out).resolve().relative_to(self._folder))

    def add(self, task: Task, source_sha256: str) -> None:
        """Add a finished output; raises OutputError."""
        try:
            stat = Path(task.source).stat()
            finished = FinishedFile(
                source=task.source,
                out=self._key(task),
                source_size=stat.st_size,
                source_mtime_ns=stat.st_mtime_ns,
                source_sha256=source_sha256,
                engine_sha256=self._engine_sha256,
                out_size=Path(task.out).stat().st_size,
            )
            with self._path.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(finished)) + "\n")
        except OSError as error:
            raise output_error(self._path, error) from error
        self._finished[finished.out] = finished


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
