"""Files of a batch: sources and their outputs, and the journal of finished outputs."""

from __future__ import annotations

import dataclasses
import glob
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError, UsageError
from runtime.files import sha256, unwritable
from runtime.image_files import IMAGE_SUFFIXES, natural_order
from runtime.sinks import video

JOURNAL = "batch.jsonl"


@dataclass(frozen=True)
class Task:
    """A source file and its output file."""

    source: str
    out: str


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """A line of the journal: an output, and the source content and engine that it was made from."""

    source: str
    out: str
    """Path relative to the journal's folder, so that the folder can be moved."""
    source_size: int
    source_mtime_ns: int
    source_sha256: str
    engine_sha256: str
    out_size: int


def find_tasks(patterns: Iterable[str], out: Path) -> list[Task]:
    """Return a task for each file of patterns, folders or file names, in natural order.

    Outputs have the same places below `out` as their sources below the pattern's fixed part. A file type that cannot be
    written becomes an `.mp4` with both suffixes: `a.avi` -> `a.avi.mp4`. Files inside `out` are skipped unless they
    were asked for. Raises InputError if there is no file, UsageError if two sources have the same output.
    """
    tasks: dict[str, Task] = {}
    for pattern in patterns:
        for path, root in _match_files(pattern):
            if path.resolve().is_relative_to(out.resolve()) and not root.resolve().is_relative_to(out.resolve()):
                continue  # an output of an earlier run
            target = out / path.relative_to(root)
            if path.suffix.lower() not in video.SUFFIXES | IMAGE_SUFFIXES:
                target = target.with_name(f"{target.name}.mp4")
            other = tasks.setdefault(str(target), Task(str(path), str(target)))
            if Path(other.source).resolve() != path.resolve():
                raise UsageError(
                    f"two sources would have the output {target}", path, hint="give another --source, or one at a time"
                )
    if not tasks:
        raise InputError("no files found", ", ".join(patterns), hint="give a quoted pattern such as 'DIR/**/*.mp4'")
    return sorted(tasks.values(), key=lambda task: natural_order(Path(task.source)))


def _match_files(pattern: str) -> list[tuple[Path, Path]]:
    """Return the files of a pattern, folder or file name, each with the folder whose structure its output copies."""
    path = Path(pattern)
    if path.is_dir():
        return [(file, path) for file in path.rglob("*") if file.is_file()]
    if path.is_file():
        return [(path, path.parent)]
    root = Path(*_fixed_parts(path))
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute patterns
    return [(Path(name), root) for name in names if Path(name).is_file()]


def _fixed_parts(path: Path) -> list[str]:
    """Return the parts of a pattern before the first one with a wildcard, at least without the file name."""
    first = next((index for index, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts) - 1)
    return list(path.parts[:first])


class Journal:
    """Outputs that earlier runs finished in a folder: one JSON line for each file, appended by a single process."""

    def __init__(self, folder: Path, engine_sha256: str) -> None:
        self._folder, self._path, self._engine_sha256 = folder.resolve(), folder / JOURNAL, engine_sha256
        self._entries: dict[str, JournalEntry] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text() if self._path.exists() else ""
        except OSError as error:
            raise unwritable(self._path, error) from error
        for line in text.splitlines():
            try:
                entry = JournalEntry(**json.loads(line))
            except (ValueError, TypeError):
                continue  # cut off by a power cut
            self._entries[entry.out] = entry

    def is_finished(self, task: Task) -> bool:
        """Whether the output exists and was made from the present content of the source by this engine.

        The content is read only if the source has the recorded size and another modification time.
        """
        entry = self._entries.get(self._key(task))
        if entry is None or entry.engine_sha256 != self._engine_sha256 or _size(Path(task.out)) != entry.out_size:
            return False
        stat = Path(task.source).stat()
        if (stat.st_size, stat.st_mtime_ns) == (entry.source_size, entry.source_mtime_ns):
            return True
        return stat.st_size == entry.source_size and sha256(Path(task.source)) == entry.source_sha256

    def may_write(self, task: Task) -> bool:
        """Whether the output does not exist yet, or was made by an earlier run."""
        return self._key(task) in self._entries or not Path(task.out).exists()

    def _key(self, task: Task) -> str:
        return str(Path(task.out).resolve().relative_to(self._folder))

    def add(self, task: Task, source_sha256: str) -> None:
        """Record a finished output; raises OutputError."""
        try:
            stat = Path(task.source).stat()
            entry = JournalEntry(
                source=task.source,
                out=self._key(task),
                source_size=stat.st_size,
                source_mtime_ns=stat.st_mtime_ns,
                source_sha256=source_sha256,
                engine_sha256=self._engine_sha256,
                out_size=Path(task.out).stat().st_size,
            )
            with self._path.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(entry)) + "\n")
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._entries[entry.out] = entry


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if there is no such file."""
    return path.stat().st_size if path.is_file() else None
