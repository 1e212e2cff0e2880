"""Saving and loading: training state that survives a kill, and published weights."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from train.models import Generator, create_generator

WEIGHTS = "generator.safetensors"
CONFIG = "config.json"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another network."""


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write training state so that `path` holds either the old state or the new one, whole."""
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; raises CheckpointError if it is damaged or missing."""
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever zipfile, pickle and struct raise
        raise CheckpointError(f"cannot be loaded ({type(error).__name__}); start without --resume: {path}") from error
    return state


def publish(generator: Generator, config_json: str, run: Path) -> None:
    """Write `generator.safetensors` and `config.json`, all that the export needs."""
    save_file({name: value.contiguous() for name, value in generator.state_dict().items()}, run / WEIGHTS)
    (run / CONFIG).write_text(config_json + "\n")


def weights_path(run: Path) -> Path:
    """The published weights of a run, which may be given by their own name too."""
    return run if run.suffix == ".safetensors" else run / WEIGHTS


def load_generator(run: Path) -> tuple[Generator, dict[str, Any]]:
    """The published generator of a run in eval mode, and its configuration.

    `run`: the folder, or the `.safetensors` file in it. Raises CheckpointError, with the path
    and the reason, if either file is missing, damaged, or does not fit the other.
    """
    weights = weights_path(run)
    folder = weights.parent
    try:
        config = json.loads((folder / CONFIG).read_text())
        generator = create_generator(config["generator"], **config["options"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"no usable {CONFIG} ({error}); give the folder that python -m train wrote: {folder}"
        ) from error
    try:
        generator.load_state_dict(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"weights do not load ({reason}); train again or restore the file: {weights}") from error
    return generator.eval(), config
