"""Installed versions next to each other in a folder, with links to two of them; a power cut never leaves none.

versions/1.1.0-5be0c3a1/     current -> versions/1.2.0-9d1f44e7
versions/1.2.0-9d1f44e7/     previous -> versions/1.1.0-5be0c3a1
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from runtime.errors import OutputError, UsageError
from runtime.files import output_error, sha256
from runtime.install.bundle import MANIFEST, Manifest, sync

_STAGING = "incoming"
"""Name of the folder where a version is prepared."""


class Versions:
    """A folder of versions; each change becomes visible with one rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.current, self.previous = folder / "current", folder / "previous"
        self._versions = folder / "versions"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the folder, lock it for this process, and remove what a killed process left; raises OutputError."""
        try:
            self._versions.mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise OutputError("another install is running", self.folder, hint="wait for it") from error
                shutil.rmtree(self._versions / _STAGING, ignore_errors=True)
                yield
        except OSError as error:
            raise output_error(self.folder, error) from error

    @contextmanager
    def create_staging_folder(self) -> Iterator[Path]:
        """Create an empty folder to prepare a version in, and remove it at the end unless `activate` has taken it."""
        folder = self._versions / _STAGING
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def current_manifest(self) -> Manifest | None:
        """Return the manifest of the current version; None if there is none that can be read."""
        with suppress(OSError, ValueError, RecursionError):
            return Manifest.from_json((self.current / MANIFEST).read_text())
        return None

    def activate(self, staging: Path, name: str) -> str:
        """Make a prepared version the current one and the current one the previous; remove all older versions.

        A version that is there already is kept if its files are those of `staging`; otherwise it is replaced, under
        another name, so that a power cut leaves one of them. Returns the name.
        """
        copies = [path for path in self._versions.iterdir() if path.name.partition("~")[0] == name]
        target = next((path for path in copies if _has_files_of(path, staging)), None)
        if target is None:
            target = next(path for path in self._names(name) if not path.exists())
            staging.rename(target)
            sync(self._versions)
        if self.current.exists() and self.current.resolve().name.partition("~")[0] != name:
            self._set_link(self.previous, self.current.resolve())
        self._set_link(self.current, target)
        kept = {link.resolve() for link in (self.current, self.previous) if link.exists()}
        for version in self._versions.iterdir():
            if version.resolve() not in kept and version.name != _STAGING:
                shutil.rmtree(version, ignore_errors=True)
        return target.name

    def _names(self, name: str) -> Iterator[Path]:
        """Yield the folders that a version may have: NAME, NAME~2, NAME~3 and so on."""
        yield self._versions / name
        yield from (self._versions / f"{name}~{number}" for number in count(2))

    def roll_back(self) -> str:
        """Exchange the current and the previous version and return the name of the new current one.

        Raises UsageError if there is no previous version.
        """
        if not self.previous.exists():
            raise UsageError("there is no previous version", self.folder, hint="install a bundle")
        before, after = self.current.resolve(), self.previous.resolve()
        self._set_link(self.current, after)
        self._set_link(self.previous, before)
        return after.name

    def _set_link(self, link: Path, target: Path) -> None:
        new = link.with_name(f".{link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(target.relative_to(self.folder.resolve()))
        new.rename(link)
        sync(self.folder)


def _has_files_of(version: Path, staging: Path) -> bool:
    """Return whether a version has every file of another folder, undamaged."""
    try:
        files = [path.relative_to(staging) for path in staging.rglob("*") if path.is_file()]
        return all(sha256(version / file) == sha256(staging / file) for file in files)
    except OSError:  # a file is missing, or its disk is damaged
        return False
