"""Cache of step results by the digest of their inputs, so that a second export repeats only what changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from export.progress import Progress
from runtime.files import sha256, write_whole

_DIGEST_BYTES = hashlib.sha256().digest_size


def compute_digest(*parts: bytes | str) -> str:
    """Return the SHA-256 of several parts and their lengths: ("ab", "c") differs from ("a", "bc")."""
    total = hashlib.sha256()
    for part in parts:
        data = os.fsencode(part) if isinstance(part, str) else part  # names of files need not be UTF-8
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def compute_folder_digest(folder: Path) -> str:
    """Return the SHA-256 of the names and contents of all files below a folder, or of one file."""
    files = [folder]
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return compute_digest(*(part for path in files for part in (path.relative_to(folder).as_posix(), sha256(path))))


class StepCache:
    """Folder of step results; a file is named after its step and the digest of the step's inputs.

    `base`: digest of what every step depends on, which is our code and the packages that it uses.
    """

    def __init__(self, folder: Path, *, base: str) -> None:
        self._folder, self._base = folder, base
        self.computed: list[str] = []
        """Names of the steps that were not in the cache."""
        self.progress = Progress()
        self._used: set[Path] = set()

    def get(self, step: str, inputs: dict[str, object], compute: Callable[[], bytes]) -> bytes:
        """Return the result of a step: the cached one if there is one for these inputs, otherwise a computed one.

        Prints a line on standard error.
        """
        path = self._folder / f"{step}-{compute_digest(self._base, json.dumps(inputs, sort_keys=True))[:24]}"
        self._used.add(path)
        if (cached := _read(path)) is not None:
            self.progress.report_cached(step)
            return cached
        with self.progress.step(step):
            result = compute()
        self.computed.append(step)
        write_whole(path, hashlib.sha256(result).digest() + result)
        return result

    def remove_unused(self) -> None:
        """Remove results that this export did not use."""
        for path in self._folder.glob("*-*"):
            if path not in self._used and path.is_file():
                path.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    """Return the result in a file, after its SHA-256; None if there is none, or a power cut has damaged it."""
    content = path.read_bytes() if path.is_file() else b""
    digest, result = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return result if hashlib.sha256(result).digest() == digest else None
