"""Files of a batch: finding them, and the place of each output."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError, UsageError
from runtime.files import require_distinct_partial_names
from runtime.image_files import IMAGE_SUFFIXES, is_image, natural_order
from runtime.patterns import find_files, folder_before_wildcard
from runtime.sinks import video
from runtime.video_files import is_video


@dataclass(frozen=True)
class Task:
    """A file to restore, and its output."""

    source: str
    out: str


def find_tasks(patterns: Iterable[str], out: Path, *, say: Callable[[str], None] = lambda _: None) -> list[Task]:
    """Return a task for each file of patterns, folders and file names, in natural order.

    Of a folder, only videos and images whose names do not begin with a dot are taken; `say` gets a line about the
    others. Outputs have the tree of their sources. A file whose kind cannot be written gets `.mp4` after its own
    suffix: `a.avi` -> `a.avi.mp4`. Raises InputError if there is no file, UsageError if two files have one output, or
    if an output is a source or has the name of another one while that is unfinished.
    """
    tasks: dict[str, Task] = {}
    for pattern in patterns:
        for path, root in _find_files(pattern, say):
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
        raise InputError(
            "no videos or images found", ", ".join(patterns), hint="give a quoted pattern such as 'DIR/**/*.mp4'"
        )
    sources = {Path(task.source).resolve() for task in tasks.values()}
    for task in tasks.values():
        if Path(task.out).resolve() in sources:
            raise UsageError("output is a source", task.out, hint="give another --out")
    require_distinct_partial_names(Path(task.out) for task in tasks.values())
    return sorted(tasks.values(), key=lambda task: natural_order(Path(task.source)))


def _find_files(pattern: str, say: Callable[[str], None]) -> list[tuple[Path, Path]]:
    """Return the files of a pattern, folder or name, each with the folder that its output path is relative to."""
    path = Path(pattern)
    if os.path.isdir(path):  # noqa: PTH112 - False for names that are too long
        return [(file, path) for file in _find_media(path, say)]
    if os.path.isfile(path):  # noqa: PTH113
        return [(path, path.parent)]
    root = folder_before_wildcard(path)
    return [(file, root) for file in find_files(pattern)]


def _find_media(folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """Yield the videos and images of a folder and its folders, and `say` which kinds of files were left out."""
    others: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts) or not _is_file(path):
            continue
        if is_video(path) or is_image(path):
            yield path
        else:
            others[path.suffix.lower() or "without suffix"] += 1
    if others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in others.most_common())
        say(f"skipped {others.total()} files of {folder} that are no videos or images: {kinds}")


def _is_file(path: Path) -> bool:
    """Whether a path is a file, or cannot be examined, so that restoring it names the reason."""
    try:
        return path.is_file()
    except OSError:
        return True
