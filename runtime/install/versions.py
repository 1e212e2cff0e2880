"""Versions side by side in a folder, of which `current` and `previous` name two; a power cut never leaves none.

versions/1.1.0-5be0c3a1/     current -> versions/1.2.0-9d1f44e7
versions/1.2.0-9d1f44e7/     previous -> versions/1.1.0-5be0c3a1
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import OutputError, UsageError
from runtime.files import unwritable
from runtime.install.bundle import flush

_INCOMING = "incoming"


class Versions:
    """A folder of versions; every change of it is one rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current, self.previous = folder / "current", folder / "previous"
        self._versions = folder / "versions"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder, made if needed, for this process, and remove what a killed one left; raises OutputError."""
        try:
            self._versions.mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise OutputError("another install is under way", self.folder, hint="wait for it") from error
                shutil.rmtree(self._versions / _INCOMING, ignore_errors=True)
                yield
        except OSError as error:
            raise unwritable(self.folder, error) from error

    @contextmanager
    def incoming(self) -> Iterator[Path]:
        """An empty folder for a version to be made in; what is still in it at the end is removed."""
        folder = self._versions / _INCOMING
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, incoming: Path, name: str) -> None:
        """Make a finished version the current one, and the current one the previous; older ones are removed."""
        target = self._versions / name
        if not target.exists():
            incoming.rename(target)
            flush(self._versions)
        if self.current.exists() and self.current.resolve() != target.resolve():
            self._point(self.previous, self.current.resolve())
        self._point(self.current, target)
        kept = {link.resolve() for link in (self.current, self.previous) if link.exists()}
        for other in self._versions.iterdir():
            if other.resolve() not in kept and other.name != _INCOMING:
                shutil.rmtree(other, ignore_errors=True)

    def roll_back(self) -> str:
        """Make the previous version the current one, and the other way round; its name. Raises UsageError."""
        if not self.previous.exists():
            raise UsageError("no version before this one is kept", self.folder, hint="install a bundle")
        before, after = self.current.resolve(), self.previous.resolve()
        self._point(self.current, after)
        self._point(self.previous, before)
        return after.name

    def _point(self, link: Path, target: Path) -> None:
        new = link.with_name(f".{link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(target.relative_to(self.folder.resolve()))
        new.rename(link)
        flush(self.folder)
