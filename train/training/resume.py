"""Which runs can be resumed: those with the settings, images and processes that they began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runtime.errors import UsageError
from train.config import Recipe

CHANGEABLE_SETTINGS = {
    "epochs",
    "max_steps",
    "early_stopping_epochs",
    "keep_every_epochs",
    "save_steps",
    "log_steps",
    "validation_steps",
    "image_steps",
    "workers",
}
"""Settings that a resumed run may change."""


def check_state(
    state: dict[str, Any], run: Path, *, recipe: Recipe, processes: int, data_hash: str, teacher_hash: str
) -> None:
    """Raise UsageError unless a saved state is of these settings, processes, images and teacher."""
    saved = Recipe.from_json(state["recipe"])  # of an earlier version, perhaps with fewer settings
    before, now = json.loads(saved.to_json()), json.loads(recipe.to_json())
    changed = {name: before.get(name) for name in now if now[name] != before.get(name)}
    refused = [f"{name} was {value!r}" for name, value in changed.items() if name not in CHANGEABLE_SETTINGS]
    if refused:
        what = f"settings are not those of the run ({', '.join(refused)})"
        raise UsageError(what, run, hint="give the same ones, or another --out")
    if state["processes"] != processes:
        what = f"the run has {state['processes']} processes, not {processes}"
        raise UsageError(what, run, hint="start the same number")
    if state["data_hash"] != data_hash:
        what = "the images are not those that the run began with"
        raise UsageError(what, run, hint="restore them, or give another --out")
    if state["teacher_hash"] != teacher_hash:
        what = "the teacher is not the one that the run began with"
        raise UsageError(what, recipe.teacher, hint="restore it, or give another --out")
