"""Which runs can be resumed: those with the settings, images and processes that they began with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from runtime.errors import UsageError
from train.checkpoint import hash_weights, load_state
from train.config import Recipe
from train.errors import CheckpointError
from train.training.distributed import Ranks
from train.weights import STATE

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


def load_state_of(recipe: Recipe, run: Path, *, ranks: Ranks) -> dict[str, Any]:
    """Return the newest saved state of a run.

    Raises CheckpointError if none can be loaded, and UsageError if its settings, its teacher or its number of
    processes differ.
    """
    failure = None
    try:
        state, path = load_state(run)
        description = f"{path.name} of step {state['step']}"
    except CheckpointError as error:
        failure, description = error, str(error)
    ranks.require_equal({"saved state": description})
    if failure:
        raise failure
    _require_same_run(state, run, recipe=recipe, processes=ranks.count)
    if ranks.is_first and path.name != STATE:
        tqdm.write(f"{STATE} cannot be loaded; resuming from the state before it, step {state['step']}")
    return state


def _require_same_run(state: dict[str, Any], run: Path, *, recipe: Recipe, processes: int) -> None:
    saved = Recipe.from_json(state["recipe"])  # of an earlier version, perhaps with fewer settings
    before, now = (_flatten(json.loads(settings.to_json())) for settings in (saved, recipe))
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    refused = [f"{name} was {before.get(name)!r}" for name in changed if name not in CHANGEABLE_SETTINGS]
    if refused:
        what = f"settings are not those of the run ({', '.join(refused)})"
        raise UsageError(what, run, hint="give the same ones, or another --out")
    if state["processes"] != processes:
        what = f"the run has {state['processes']} processes, not {processes}"
        raise UsageError(what, run, hint="start the same number")
    if state["teacher_hash"] != hash_teacher(recipe):
        what = "the teacher is not the one that the run began with"
        raise UsageError(what, recipe.teacher, hint="restore it, or give another --out")


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by the names that `--set` takes, such as `data.crops`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def hash_teacher(recipe: Recipe) -> str:
    """Return the SHA-256 of the weights of the teacher; empty without one."""
    return hash_weights(Path(recipe.teacher)) if recipe.teacher else ""
