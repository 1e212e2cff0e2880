"""Which files there are to do, where they go, and which are done already."""

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
    """One file and what is to become of it."""

    source: str
    out: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """A line of the journal: this output was made of that content by that engine."""

    source: str
    out: str
    """Seen from the journal's folder, which may be moved."""
    source_size: int
    source_mtime_ns: int
    source_sha256: str
    engine_sha256: str
    out_size: int


def tasks_of(patterns: Iterable[str], out: Path) -> list[Task]:
    """A task for each file of some patterns or folders, in natural order; outputs lie as their sources do.

    What cannot be written as the kind that it is becomes an `.mp4` beside its own suffix: `a.avi` -> `a.avi.mp4`.
    Raises InputError if there are none, UsageError if two would have one output.
    """
    tasks: dict[str, Task] = {}
    for pattern in patterns:
        for path, root in _found(pattern):
            if path.resolve().is_relative_to(out.resolve()) and not root.resolve().is_relative_to(out.resolve()):
                continue  # made by an earlier run
            target = out / path.relative_to(root)
            if path.suffix.lower() not in video.SUFFIXES | IMAGE_SUFFIXES:
                target = target.with_name(f"{target.name}.mp4")
            other = tasks.setdefault(str(target), Task(str(path), str(target)))
            if Path(other.source).resolve() != path.resolve():
                raise UsageError(
                    f"two sources would become {target}", path, hint="give another --source, or one at a time"
                )
    if not tasks:
        raise InputError("no files found", ", ".join(patterns), hint="give a quoted pattern such as 'DIR/**/*.mp4'")
    return sorted(tasks.values(), key=lambda task: natural_order(Path(task.source)))


def _found(pattern: str) -> list[tuple[Path, Path]]:
    """Files of a pattern, a folder or a name, each with the folder that it is seen from."""
    path = Path(pattern)
    if path.is_dir():
        return [(file, path) for file in path.rglob("*") if file.is_file()]
    if path.is_file():
        return [(path, path.parent)]
    fixed = [part for part, _ in zip(path.parts, _until_magic(path), strict=False)]
    root = Path(*fixed)
    names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob refuses absolute ones
    return [(Path(name), root) for name in names if Path(name).is_file()]


def _until_magic(path: Path) -> list[str]:
    first = next((index for index, part in enumerate(path.parts) if glob.has_magic(part)), len(path.parts) - 1)
    return list(path.parts[:first])


class Journal:
    """What earlier runs finished in a folder, one JSON line a file; written by one process, a line at a time."""

    def __init__(self, folder: Path, engine_sha256: str) -> None:
        self._folder, self._path, self._engine_sha256 = folder.resolve(), folder / JOURNAL, engine_sha256
        self._done: dict[str, Done] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            text = self._path.read_text() if self._path.exists() else ""
        except OSError as error:
            raise unwritable(self._path, error) from error
        for line in text.splitlines():
            try:
                done = Done(**json.loads(line))
            except (ValueError, TypeError):
                continue  # cut off when the power went
            self._done[done.out] = done

    def has(self, task: Task) -> bool:
        """Whether the output is there, and was made of this very content by this engine.

        The content is only read again if the source's size or time have changed.
        """
        done = self._done.get(self._key(task))
        if done is None or done.engine_sha256 != self._engine_sha256 or _size(Path(task.out)) != done.out_size:
            return False
        stat = Path(task.source).stat()
        if (stat.st_size, stat.st_mtime_ns) == (done.source_size, done.source_mtime_ns):
            return True
        return stat.st_size == done.source_size and sha256(Path(task.source)) == done.source_sha256

    def may_write(self, task: Task) -> bool:
        """Whether the output's place is free, or taken by what an earlier run made."""
        return self._key(task) in self._done or not Path(task.out).exists()

    def _key(self, task: Task) -> str:
        return str(Path(task.out).resolve().relative_to(self._folder))

    def add(self, task: Task, source_sha256: str) -> None:
        """Note a finished output; raises OutputError."""
        try:
            stat = Path(task.source).stat()
            done = Done(
                source=task.source,
                out=self._key(task),
                source_size=stat.st_size,
                source_mtime_ns=stat.st_mtime_ns,
                source_sha256=source_sha256,
                engine_sha256=self._engine_sha256,
                out_size=Path(task.out).stat().st_size,
            )
            with self._path.open("a") as file:
                file.write(json.dumps(dataclasses.asdict(done)) + "\n")
        except OSError as error:
            raise unwritable(self._path, error) from error
        self._done[done.out] = done


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
