"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from runtime.errors import OutputError


class PendingFile:
    """A file that is written as `NAME.partial.SUFFIX` and renamed when it is complete.

    Holds a lock on it meanwhile, so that two runs never write one output. Raises OutputError
    if the file cannot be made or another run holds it.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        self.partial = partial_name(final)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(final, error) from error
        self._lock = _locked(self.partial, final)

    def set_aside(self, path: Path) -> None:
        """Give what is there another name, and go on with an empty file."""
        self.partial.replace(path)
        os.close(self._lock)
        self._lock = _locked(self.partial, self.final)

    def close(self, *, complete: bool, keep: bool = True) -> Path | None:
        """Publish the file, or leave it under its partial name; where it is, None if empty.

        Without `keep` an incomplete one is removed.
        """
        try:
            try:
                if os.fstat(self._lock).st_size == 0 or not (complete or keep):
                    self.partial.unlink()
                    return None
                if not complete:
                    return self.partial
                os.fsync(self._lock)
                self.partial.replace(self.final)
                _sync_folder(self.final.parent)  # or a power cut could undo the renaming
                return self.final
            finally:
                os.close(self._lock)
        except OSError as error:
            raise unwritable(self.final, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that then holds all of it, or what it held before; raises OutputError."""
    pending = PendingFile(path)
    whole = False
    try:
        pending.partial.write_bytes(content)
        whole = True
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        pending.close(complete=whole, keep=False)


def _locked(partial: Path, final: Path) -> int:
    try:
        lock = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise unwritable(final, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise OutputError(
            "another run is writing this output", final, hint="wait for it, or give another --out"
        ) from error
    return lock


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def partial_name(final: Path) -> Path:
    """`clip.mp4` -> `clip.partial.mp4`, which players still open."""
    return final.with_name(f"{final.stem}.partial{final.suffix}")


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write so that the file holds all of it or what it held before; raises OutputError."""
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())


def sha256(path: Path) -> str:
    """Of a file's content, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def unwritable(path: Path, error: Exception) -> OutputError:
    """An OutputError that gives the system's reason."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return OutputError(
        f"cannot write output ({reason})", path, hint="free space, or give a place that can be written to"
    )
