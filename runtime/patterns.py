"""Files that match a pattern of the shell, where `**` ends in spite of loops of links."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path

_PSEUDO_FOLDERS = {"/proc", "/sys", "/dev"}
"""Folders of the kernel: no media files, but links to the whole disk. A `**` above them leaves them out."""


def find_files(pattern: str) -> list[Path]:
    """Return the files of a pattern; `**` stands for any number of folders.

    As with `glob.glob`, wildcards match no name that begins with a dot, and links to folders are followed. A link to a
    folder that it is in is not followed. Folders that cannot be read are left out.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        files = map(Path, glob.glob(pattern))  # noqa: PTH207 - Path.glob refuses absolute ones
        return [path for path in files if path.is_file()]
    before, after = parts[: parts.index("**")], parts[parts.index("**") :]
    with_hidden = any(part.startswith(".") for part in after)
    roots = glob.glob(str(Path(*before))) if before else ["."]  # noqa: PTH207
    return [
        Path(root, *file)
        for root in roots
        for file in _walk(Path(root), with_hidden=with_hidden)
        if _matches(file, after)
    ]


def folder_before_wildcard(pattern: Path) -> Path:
    """Return the folder of a pattern: its parts before the first one with a wildcard, without the file name."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts[:-1]))


def _walk(root: Path, *, with_hidden: bool) -> Iterator[tuple[str, ...]]:
    """Yield the files below a folder, as the parts of their path from there."""
    stack: list[tuple[tuple[str, ...], frozenset[tuple[int, int]]]] = [((), frozenset())]
    while stack:
        parts, above = stack.pop()
        folder = Path(root, *parts)
        try:
            status = folder.stat()
            entries = list(os.scandir(folder))
        except OSError:
            continue
        if (identity := (status.st_dev, status.st_ino)) in above:
            continue
        for entry in entries:
            if entry.name.startswith(".") and not with_hidden:
                continue
            with suppress(OSError):  # a link that cannot be followed
                if entry.is_file():
                    yield (*parts, entry.name)
                elif entry.is_dir() and str(Path(entry.path).absolute()) not in _PSEUDO_FOLDERS:
                    stack.append(((*parts, entry.name), above | {identity}))


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns or not parts:
        return not parts and all(pattern == "**" for pattern in patterns)
    is_hidden = parts[0].startswith(".")
    if patterns[0] == "**":
        return _matches(parts, patterns[1:]) or (not is_hidden and _matches(parts[1:], patterns))
    if is_hidden and not patterns[0].startswith("."):
        return False
    return fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
