"""The journal of a batch: its finished files, and the outputs that it has started to write."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.batch.files import Task
from runtime.errors import UsageError
from runtime.files import output_error, partial_name, sha256, sync_folder
from runtime.json_text import parse_json, require_field_types
from runtime.sinks import is_video_output
from runtime.sinks.encoder_settings import DEFAULT_SETTINGS
from runtime.sinks.encoders import choose_encoder

JOURNAL = "batch.jsonl"
DEFAULT_ENCODER = str(choose_encoder(DEFAULT_SETTINGS))
"""Encoder of lines that name none."""
_STARTED = "started"
"""Key of a line about an output that is being written: true from the start of its file, false after a failure."""


@dataclass(frozen=True, kw_only=True)
class SourceVersion:
    """Content of a source: facts that change when the file is changed."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def read(cls, path: Path) -> SourceVersion:
        """Read a file; raises OSError. A file that changes meanwhile counts as changed in the next run."""
        stat = path.stat()
        return cls(size=stat.st_size, mtime_ns=stat.st_mtime_ns, sha256=sha256(path))


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
    damage: str = ""
    """Error of a source that is cut off, whose output holds the frames up to there; empty for a whole one."""

    encoder: str = DEFAULT_ENCODER
    """Encoder of a video with its settings."""

    def __post_init__(self) -> None:
        require_field_types(self)


class Journal:
    """Finished files of a folder, one JSON line each; written by one process, a line at a time.

    A line `{"out": ..., "started": true}` comes before the output can appear under its name. After a power failure
    between the two, the next run knows that the output is its own. Lines that cannot be read are ignored.
    """

    def __init__(self, folder: Path, engine_sha256: str, encoder: str = DEFAULT_ENCODER) -> None:
        self._folder, self._path = folder, folder / JOURNAL
        self._engine_sha256, self._encoder = engine_sha256, encoder
        self._finished: dict[str, FinishedFile] = {}
        self._started: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            content = self._path.read_bytes() if self._path.exists() else b""
        except OSError as error:
            raise output_error(self._path, error) from error
        for entry in _read_entries(content):
            self._read_entry(entry)

    def _read_entry(self, entry: dict[str, Any]) -> None:
        out = entry["out"]
        if _STARTED in entry:
            (self._started.add if entry[_STARTED] else self._started.discard)(out)
            return
        names = [field.name for field in dataclasses.fields(FinishedFile)]
        try:
            self._finished[out] = FinishedFile(**{name: entry[name] for name in names if name in entry})
        except (TypeError, ValueError):  # facts are missing or of another type
            return
        self._started.discard(out)

    def find_finished(self, task: Task) -> FinishedFile | None:
        """Return the line of an output that exists and was made from the same content in the same way, or None.

        The way is the engine and, for a video, the encoder.

        The content is read again only if the size or the time of the source has changed. A source that cannot be read
        is not finished.
        """
        finished = self._finished.get(self._key(task))
        if finished is None or not self._has_same_encoder(task, finished):
            return None
        if (finished.engine_sha256, finished.out_size) != (self._engine_sha256, _size(Path(task.out))):
            return None
        try:
            stat = Path(task.source).stat()
            is_same = (stat.st_size, stat.st_mtime_ns) == (finished.source_size, finished.source_mtime_ns) or (
                stat.st_size == finished.source_size and sha256(Path(task.source)) == finished.source_sha256
            )
        except OSError:
            return None
        return finished if is_same else None

    def require_same_encoder(self, tasks: Sequence[Task]) -> None:
        """Raise UsageError if an earlier run wrote the video of a task with another encoder or other settings."""
        for task in tasks:
            finished = self._finished.get(self._key(task))
            if finished and _size(Path(task.out)) is not None and not self._has_same_encoder(task, finished):
                raise UsageError(
                    f"the journal has a video of {finished.encoder}, not of {self._encoder}",
                    self._path,
                    hint="give the same options of the encoder, another --out, or -y to write its files again",
                )

    def _has_same_encoder(self, task: Task, finished: FinishedFile) -> bool:
        return finished.encoder == self._encoder or not is_video_output(task.out)

    def may_write(self, task: Task) -> bool:
        """Whether the output does not exist, or an earlier run wrote it."""
        key, out = self._key(task), Path(task.out)
        # A partial file shows that the run that started the output has not come to the renaming.
        is_own = key in self._finished or (key in self._started and not partial_name(out).exists())
        return is_own or _size(out) is None

    def start(self, task: Task) -> None:
        """Note that an output is going to be written; raises OutputError."""
        self._append({"out": self._key(task), _STARTED: True})
        self._started.add(self._key(task))

    def withdraw(self, task: Task) -> None:
        """Note that a started output was not written; raises OutputError."""
        self._append({"out": self._key(task), _STARTED: False})
        self._started.discard(self._key(task))

    def finish(self, task: Task, source: SourceVersion, *, damage: str = "") -> None:
        """Add a finished output; raises OutputError, or OSError if the output is not there."""
        finished = FinishedFile(
            source=task.source,
            out=self._key(task),
            source_size=source.size,
            source_mtime_ns=source.mtime_ns,
            source_sha256=source.sha256,
            engine_sha256=self._engine_sha256,
            out_size=Path(task.out).stat().st_size,
            damage=damage,
            encoder=self._encoder,
        )
        self._append(dataclasses.asdict(finished))
        self._finished[finished.out] = finished
        self._started.discard(finished.out)

    def _key(self, task: Task) -> str:
        return os.path.relpath(task.out, self._folder)

    def _append(self, entry: dict[str, Any]) -> None:
        """Append a line and flush it to disk; a last line that was cut off is ended first."""
        try:
            is_new = not self._path.exists()
            with self._path.open("a+b") as file:
                is_cut_off = False
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    is_cut_off = file.read(1) != b"\n"
                file.write(b"\n" * is_cut_off + json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(self._path.parent)
        except OSError as error:
            raise output_error(self._path, error) from error


def _read_entries(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects about outputs; lines that hold anything else are left out."""
    for line in content.split(b"\n"):
        try:
            entry = parse_json(line.decode(errors="replace"))
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("out"), str):
            yield entry


def _size(path: Path) -> int | None:
    """Return the size of a file in bytes; None if there is no file that can be reached."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError:
        return None
