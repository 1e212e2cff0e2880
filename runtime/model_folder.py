"""The folder of a user's own engines, which `--engine NAME` finds by their names."""

from __future__ import annotations

import os
import re
from pathlib import Path

VARIABLE = "DEBLUR_MODELS"
"""Environment variable that names the folder."""
NAME_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]*")
"""Names of models; they are folders, and no paths."""
_SUFFIXES = (".onnx", ".plan")


def models_folder() -> Path:
    """Return the folder of the user's models: `DEBLUR_MODELS`, or `deblur/models` in the user's data folder."""
    stated = os.environ.get(VARIABLE)
    if stated:
        return Path(stated)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "deblur" / "models"


def find_model(name: str) -> Path | None:
    """Return the engine of the user's model with a name: its only file, or the folder of its engines; None without one.

    Nothing is opened. Any text may be asked for, such as a path or an address.
    """
    if not NAME_PATTERN.fullmatch(name):
        return None
    folder = models_folder() / name
    if not folder.is_dir():
        return None
    engines = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES]
    return engines[0] if len(engines) == 1 else folder


def list_model_folders() -> list[Path]:
    """Return the folders of the user's models, sorted by name."""
    folder = models_folder()
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and NAME_PATTERN.fullmatch(path.name))
