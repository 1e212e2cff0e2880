"""Output files that appear under their final name only when they are complete."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from runtime.errors import OutputError, UsageError, printable


class PendingFile:
    """A file that is written as `NAME.partial.SUFFIX` and renamed when it is complete.

    The partial file is locked while it is open, so that two runs never write the same output. The folder is made if it
    does not exist. Raises OutputError if the file cannot be created or another run has locked it.
    """

    def __init__(self, final: Path) -> None:
        self.final = final
        if os.path.isdir(final):  # noqa: PTH112 - False for names that are too long, which fail below
            raise OutputError("output is a folder", final, hint="give the name of a file")
        self.partial = partial_name(final)
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(final, error) from error
        self._lock = _open_locked(self.partial, final)

    def set_aside(self, path: Path) -> None:
        """Rename the partial file to `path` and continue with an empty one; raises OSError."""
        self.partial.replace(path)
        os.close(self._lock)
        self._lock = _open_locked(self.partial, self.final)

    def close(self, *, complete: bool, keep: bool = True, allow_empty: bool = False) -> Path | None:
        """Rename a complete file to its final name, leave another one under its partial name, and return the path.

        Returns None if nothing is kept: an empty file is removed unless `allow_empty`. Without `keep`, a file that is
        incomplete or cannot be renamed is removed too. Raises OutputError.
        """
        try:
            try:
                is_empty = os.fstat(self._lock).st_size == 0
                if (is_empty and not allow_empty) or not (complete or keep):
                    self.partial.unlink()
                    return None
                if not complete:
                    return self.partial
                os.fsync(self._lock)
                self.partial.replace(self.final)
                sync_folder(self.final.parent)  # or a power cut could undo the renaming
            except OSError:
                if not keep:
                    self.partial.unlink(missing_ok=True)
                raise
            else:
                return self.final
            finally:
                os.close(self._lock)
        except OSError as error:
            raise output_error(self.final, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it holds either all of `content` or, after a failure, what it held before.

    Raises OutputError.
    """
    pending = PendingFile(path)
    is_complete = False
    try:
        pending.partial.write_bytes(content)
        is_complete = True
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        pending.close(complete=is_complete, keep=False, allow_empty=True)


def _open_locked(partial: Path, final: Path) -> int:
    """Open or create the partial file with an exclusive lock and return its descriptor."""
    try:
        lock = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise output_error(final, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise OutputError(
            "another run is writing this output", final, hint="wait for it, or give another output"
        ) from error
    return lock


@contextmanager
def lock_folder(folder: Path, name: str, *, busy: str) -> Iterator[None]:
    """Create a folder and reserve it for this process with a lock on the file `name`; a killed process holds none.

    Raises UsageError with the words `busy` if another process has reserved it, OutputError if it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open("w")
    except OSError as error:
        raise output_error(folder, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(busy, folder, hint="wait for it, or give another folder") from error
        yield


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk; some network file systems and read-protected folders do not allow it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def has_utf8_name(path: Path) -> bool:
    """Whether a path can be written as UTF-8; libraries in C++ refuse other names, or crash."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def partial_name(final: Path) -> Path:
    """Return the name of an unfinished file, `clip.partial.mp4` for `clip.mp4`; players still know its type."""
    return final.with_name(f"{final.stem}.partial{final.suffix}")


def set_aside_name(final: Path) -> Path:
    """Return the name of an unfinished file while a resumed run copies it: `clip.partial.before.mp4` for `clip.mp4`."""
    return final.with_name(f"{final.stem}.partial.before{final.suffix}")


def require_distinct_partial_names(outputs: Iterable[Path]) -> None:
    """Raise UsageError if an output has the name of another one while that is unfinished: one of them would be lost."""
    outputs = list(outputs)
    names = set(outputs)
    for output in outputs:
        for name in (partial_name(output), set_aside_name(output)):
            if name in names:
                raise UsageError(
                    f"output has the name of {printable(output.name)} while that is unfinished",
                    name,
                    hint="rename its source, or restore one at a time",
                )


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write values as indented JSON, as `write_whole` does; raises OutputError."""
    write_whole(path, (json.dumps(values, indent=2) + "\n").encode())


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in chunks of 1 MiB; raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def output_error(path: Path, error: Exception) -> OutputError:
    """Return an OutputError for a path, with the reason that the operating system or library gives."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    hint = _HINTS.get(getattr(error, "errno", None), "free space, or give a writable place")
    return OutputError(f"cannot write output ({reason})", path, hint=hint)


_HINTS: dict[int | None, str] = {
    errno.ENOSPC: "free space, or give another place",
    errno.EDQUOT: "free space, or give another place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EACCES: "give a writable place",
    errno.EPERM: "give a writable place",
    errno.EROFS: "give a writable place",
    errno.ENOTDIR: "give a folder that can be made",
    errno.EEXIST: "give a folder that can be made",
}
"""Hints by the error number of the operating system."""
