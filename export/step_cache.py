"""Results kept by what went into them, so that a second export redoes only what changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from runtime.files import partial_name


def digest(*parts: bytes | str) -> str:
    """SHA-256 of several parts; where one ends and the next begins matters."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """Of the names and contents of all files below a folder, or of one file."""
    files = [folder]
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return digest(*(part for path in files for part in (path.relative_to(folder).as_posix(), path.read_bytes())))


class Steps:
    """A folder of results, each named after its step and the digest of its inputs.

    `base`: digest of what every step depends on: our code and the packages that it uses.
    """

    def __init__(self, folder: Path, *, base: str) -> None:
        self._folder, self._base = folder, base
        self.made: list[str] = []
        """Steps that were not found and had to be done."""
        self._used: set[Path] = set()

    def __call__(self, name: str, inputs: dict[str, object], make: Callable[[], bytes]) -> bytes:
        """The result of a step: kept from before if its inputs are the same, else made and kept."""
        path = self._folder / f"{name}-{digest(self._base, json.dumps(inputs, sort_keys=True))[:24]}"
        self._used.add(path)
        if path.exists():
            return path.read_bytes()
        result = make()
        self.made.append(name)
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = partial_name(path)
        unfinished.write_bytes(result)
        unfinished.replace(path)
        return result

    def sweep(self) -> None:
        """Forget results that this export did not use."""
        for path in self._folder.glob("*"):
            if path not in self._used:
                path.unlink()
