"""Saving and loading: training state that survives a kill, and published weights."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from train.models import Generator, create_generator

STATE = "state.pt"
PREVIOUS = "state.previous.pt"
WEIGHTS = "generator.safetensors"
CONFIG = "config.json"
LOCK = "lock"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another network."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that `path` holds either what it held before or all of `content`, even after a power cut."""
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def save_state(state: dict[str, Any], run: Path) -> None:
    """Write training state; the state before it stays as `state.previous.pt`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    unfinished = run / "state.next.pt"
    write_whole(unfinished, buffer.getvalue())
    if (run / STATE).exists():
        (run / STATE).replace(run / PREVIOUS)
    unfinished.replace(run / STATE)


def has_state(run: Path) -> bool:
    """Whether there is anything to resume from."""
    return (run / STATE).exists() or (run / PREVIOUS).exists()


def load_state(run: Path) -> tuple[dict[str, Any], Path]:
    """The newest training state that is whole, and its file; raises CheckpointError if there is none."""
    reasons = []
    for path in (run / STATE, run / PREVIOUS):
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            return {"step": int(state["step"]), **state}, path
        except Exception as error:  # noqa: BLE001 - torch.load raises whatever zipfile, pickle and struct raise
            reasons.append(f"{path.name}: {type(error).__name__}")
    raise CheckpointError(f"no state can be loaded ({', '.join(reasons)}); start without --resume: {run}")


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Keep a run's folder, made if needed, for this process; raises ValueError if another one trains there.

    What a killed process left half written is removed. A killed process keeps no lock.
    """
    run.mkdir(parents=True, exist_ok=True)
    with (run / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(f"another process trains here; wait for it, or give another --out: {run}") from error
        for path in (*run.glob("*.part"), run / "state.next.pt"):
            path.unlink(missing_ok=True)
        yield


def publish(generator: Generator, config_json: str, run: Path) -> None:
    """Write `generator.safetensors` and `config.json`, all that the export needs."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    write_whole(run / CONFIG, f"{config_json}\n".encode())
    write_whole(run / WEIGHTS, safetensors.torch.save(tensors))


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
        options = config["options"]
        # All weights are in the file; an encoder need not be fetched again.
        generator = create_generator(
            config["generator"], **options | ({"pretrained": None} if "pretrained" in options else {})
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"no usable {CONFIG} ({error}); give the folder that python -m train wrote: {folder}"
        ) from error
    try:
        generator.load_state_dict(safetensors.torch.load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"weights do not load ({reason}); train again or restore the file: {weights}") from error
    return generator.eval(), config


def weights_hash(run: Path) -> str:
    """SHA-256 of the published weights of a run; raises CheckpointError if there are none."""
    try:
        return hashlib.sha256(weights_path(run).read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"no weights there; give a folder that python -m train wrote: {run}") from error


def load_weights(generator: Generator, run: Path) -> None:
    """Let a generator begin as the published one of a run; raises CheckpointError if it cannot (`begin_as`)."""
    trained, _ = load_generator(run)
    try:
        generator.begin_as(trained)
    except RuntimeError as error:
        raise CheckpointError(f"weights are of another network; give its options by --set: {run}") from error
