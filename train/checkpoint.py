"""Files of a run: training state that survives a kill, and published weights."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from runtime.errors import UsageError
from runtime.files import lock_folder, output_error, partial_name, write_whole
from runtime.json_text import read_json
from train.config import Recipe
from train.errors import CheckpointError
from train.models import Generator, create_generator
from train.models.edge import Edge
from train.published import load_published
from train.weights import CONFIG, PREVIOUS_STATE, STATE, SUFFIXES, WEIGHTS, is_published, is_state, weights_path

_NEXT_STATE = "state.next.pt"
LOCK = "lock"
_MAX_REASON = 200
"""Largest number of characters of the error of a library that a message repeats."""


def save_state(state: dict[str, Any], run: Path) -> None:
    """Write the training state and keep the one before as `state.previous.pt`; raises OutputError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(run / _NEXT_STATE, buffer.getvalue())
    if (run / STATE).exists():
        (run / STATE).replace(run / PREVIOUS_STATE)
    (run / _NEXT_STATE).replace(run / STATE)


def has_state(run: Path) -> bool:
    """Whether a run has a state to resume from."""
    return (run / STATE).exists() or (run / PREVIOUS_STATE).exists()


def require_state(run: Path) -> None:
    """Raise CheckpointError if a run has no state to resume from."""
    if not has_state(run):
        raise CheckpointError("no saved state to resume from", run, hint="check the folder, or start without --resume")


def load_state(run: Path) -> tuple[dict[str, Any], Path]:
    """Return the newest undamaged training state and its file; raises CheckpointError if there is none."""
    require_state(run)
    reasons = []
    for path in (run / STATE, run / PREVIOUS_STATE):
        try:
            return _read_state(path), path
        except Exception as error:  # noqa: BLE001 - torch.load raises whatever zipfile, pickle and struct raise
            reasons.append(f"{path.name}: {type(error).__name__}")
    what = f"no state can be loaded ({', '.join(reasons)})"
    raise CheckpointError(what, run, hint="restore one, or give another --out")


def _read_state(path: Path) -> dict[str, Any]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {"step": int(state["step"]), **state}


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Create the folder of a run and reserve it for this process.

    Files that a killed process left incomplete are removed. A killed process holds no lock. Raises UsageError if
    another process trains in the folder, and OutputError if it cannot be written.
    """
    with lock_folder(run, LOCK, busy="another process trains in this folder"):
        for name in (WEIGHTS, CONFIG, _NEXT_STATE):
            partial_name(run / name).unlink(missing_ok=True)
        (run / _NEXT_STATE).unlink(missing_ok=True)
        yield


def publish(generator: Generator, config_json: str, run: Path) -> None:
    """Write `generator.safetensors` and `config.json`, which is all that the export needs; raises OutputError."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    try:
        run.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error(run, error) from error
    write_whole(run / CONFIG, f"{config_json}\n".encode())
    write_whole(run / WEIGHTS, safetensors.torch.save(tensors))


def load_generator(
    run: Path, *, network: str = "auto", options: Mapping[str, Any] | None = None
) -> tuple[Generator, dict[str, Any]]:
    """Return the generator of a run in eval mode, and the contents of its `config.json`.

    `run`: the folder or the `.safetensors` file in it for the published generator, its `state.pt` for the latest, or a
    weights file of another project (`train.published`).
    `network`: name of the network that it must be, or `auto`. `options`: options of the network to change, such as
    `pooling_px`. Raises CheckpointError if a file is missing or damaged, or if the weights do not fit the network.
    """
    if is_published(run):
        return load_published(run, network=network, options=options)
    weights = weights_path(run)
    folder = weights.parent
    state = _load_training_state(run) if is_state(run) else {}
    try:
        config = _check_config(json.loads(state["recipe"]) if state else read_json(folder / CONFIG), network=network)
        config["options"] |= options or {}
        # All weights are in the file, so that a pretrained encoder need not be downloaded again.
        without_encoder = {"pretrained": None} if "pretrained" in config["options"] else {}
        generator = create_generator(config["generator"], **config["options"] | without_encoder)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        if folder.is_file():
            what = "neither the folder of a run nor weights, whose names end in " + ", ".join(sorted(SUFFIXES))
            raise CheckpointError(what, folder, hint="give one of them") from error
        hint = "give the folder that python -m train wrote"
        if not folder.exists():
            raise CheckpointError("no such folder", folder, hint=hint) from error
        if options:
            what = f"the network cannot be made with the options {dict(options)} ({reason})"
            raise CheckpointError(what, folder, hint="correct them") from error
        if (folder / STATE).is_file() and not (folder / CONFIG).exists():
            hint = f"give its {STATE}, or go on training to the first validation, which writes it"
        raise CheckpointError(f"no usable {CONFIG} ({reason})", folder, hint=hint) from error
    try:
        generator.load_state_dict(_latest_weights(state) if state else safetensors.torch.load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:_MAX_REASON]
        hint = "leave out the options of the network" if options else "train again, or restore the file"
        raise CheckpointError(f"weights do not load ({reason})", weights, hint=hint) from error
    if not all(bool(torch.isfinite(value).all()) for value in generator.state_dict().values()):
        raise CheckpointError("weights are not finite numbers", weights, hint="train again, or restore the file")
    return generator.eval(), config


def _load_training_state(path: Path) -> dict[str, Any]:
    """Return a training state; raises CheckpointError if it cannot be loaded."""
    try:
        return _read_state(path)
    except Exception as error:  # torch.load raises whatever zipfile, pickle and struct raise
        hint = f"give {PREVIOUS_STATE}, or the folder of the run"
        raise CheckpointError(f"no training state ({type(error).__name__})", path, hint=hint) from error


def _latest_weights(state: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the generator in a training state: of its moving average, if there is one."""
    prefix = "module."  # of AveragedModel
    average: dict[str, Tensor] = state.get("average", {})
    return {n.removeprefix(prefix): value for n, value in average.items() if n.startswith(prefix)} or state["generator"]


def _check_config(config: Any, *, network: str) -> dict[str, Any]:
    """Return the settings of a run.

    Raises ValueError unless they have options and a generator, which must be `network` if that is not `auto`.
    """
    if not isinstance(config, dict) or not isinstance(config.get("generator"), str):
        raise ValueError("it names no generator")  # noqa: TRY004 - a bad value
    if network not in {"auto", config["generator"]}:
        raise ValueError(f"it names the generator {config['generator']}, not {network}")
    if not isinstance(config.get("options"), dict):
        raise ValueError("it has no options of the generator")  # noqa: TRY004 - a bad value
    return config


def load_recipe(run: Path) -> Recipe:
    """Return the recipe that a published generator was trained by; raises CheckpointError if it cannot be read."""
    folder = weights_path(run).parent
    try:
        return Recipe.from_json(_load_training_state(run)["recipe"] if is_state(run) else (folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        hint = "give the folder that python -m train wrote"
        raise CheckpointError(f"no recipe in {CONFIG} ({reason})", folder, hint=hint) from error


def require_no_network(run: Path) -> None:
    """Raise UsageError if a folder holds a network or the state of a training."""
    if has_state(run) or any((run / name).exists() for name in (WEIGHTS, CONFIG)):
        raise UsageError("this folder holds a network already", run, hint="give another --out")


def hash_weights(run: Path) -> str:
    """Return the SHA-256 of the published weights of a run; raises CheckpointError if it has none."""
    try:
        return hashlib.sha256(weights_path(run).read_bytes()).hexdigest()
    except OSError as error:
        hint = "give the folder that python -m train wrote"
        raise CheckpointError("no published weights", run, hint=hint) from error


def load_initial_weights(generator: Generator, run: Path) -> None:
    """Initialise a generator with the published weights of a run (`Generator.copy_weights_from`).

    Raises CheckpointError if they do not load or do not fit.
    """
    _copy_weights(generator.copy_weights_from, run)


def load_half_pass(generator: Generator, run: Path) -> None:
    """Initialise the pass at half the resolution of an `edge` with the published weights of a run.

    Raises UsageError for a network without this pass, and CheckpointError if the weights do not load or do not fit.
    """
    if not isinstance(generator, Edge) or generator.coarse is None:
        hint = "add --set options.half_pass=True, or leave out half_init"
        raise UsageError("half_init is for an edge network with half_pass", run, hint=hint)
    _copy_weights(generator.copy_half_pass_from, run)


def _copy_weights(copy: Callable[[Generator], None], run: Path) -> None:
    trained, _ = load_generator(run)
    try:
        copy(trained)
    except RuntimeError as error:
        hint = "give the options of that network with --set options.NAME=VALUE"
        raise CheckpointError("weights are of another network", run, hint=hint) from error
