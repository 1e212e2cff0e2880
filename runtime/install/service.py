"""The systemd unit of a board, and what keeps it from starting there."""

from __future__ import annotations

import pwd
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import runtime
from runtime.errors import UsageError

USER = "deblur"
"""User that the service runs as."""
_TEMPLATE = Path(__file__).with_name("deblur.service")
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""Folders that the unit hides from the service by `ProtectHome=yes`."""
_SAFE_PATH = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
"""Paths that mean themselves in a unit: without spaces, quotes, `$` and `%`."""


def render_unit(folder: Path) -> str:
    """Return a systemd unit that streams with this Python environment and the current version of a folder.

    Raises UsageError for paths that a unit cannot name.
    """
    values = {"@PYTHON@": sys.executable, "@FOLDER@": str(folder.resolve()), "@USER@": USER}
    for path in values.values():
        if not _SAFE_PATH.fullmatch(path):
            raise UsageError("a systemd unit cannot name this path", path, hint="use letters, digits and ._-+@")
    return re.sub(r"@[A-Z]+@", lambda match: values[match[0]], _TEMPLATE.read_text())


def find_obstacles(folder: Path) -> Iterator[str]:
    """Yield a line for the user about each thing that keeps the unit of a folder from working on this machine."""
    try:
        user_id = pwd.getpwnam(USER).pw_uid
    except KeyError:
        user_id = None
        yield f"there is no user {USER} here; make it as docs/howto/service.md shows"
    for path in dict.fromkeys((Path(sys.executable), Path(sys.executable).resolve(), Path(runtime.__file__))):
        if closed := _find_closed_folder(path):
            yield f"the service cannot enter {closed}, but needs {path}; install the toolkit in /opt/deblur"
            break
    if closed := _find_closed_folder(folder.resolve() / "current", user_id):
        yield f"the service cannot enter {closed}; install the engines with --to /var/lib/deblur/engines"
    elif not folder.is_dir():
        yield f"there are no engines in {folder} yet; install a bundle"
    elif user_id is not None and folder.stat().st_uid != user_id:
        yield f"--rebuild cannot write, because {USER} does not own {folder}; type sudo chown -R {USER}: {folder}"


def _find_closed_folder(path: Path, user_id: int | None = None) -> Path | None:
    """Return the first folder on the way to a path that the service cannot enter; None if there is none.

    `user_id`: user whose own folders count as open; the others must be open to everybody.
    """
    for folder in reversed(path.parents):
        try:
            status = folder.stat()
        except OSError:  # it does not exist yet, or it is in a folder that only its owner may enter
            return None
        if folder in _HIDDEN or not (status.st_mode & stat.S_IXOTH or status.st_uid == user_id):
            return folder
    return None
