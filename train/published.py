"""Published checkpoints: weights files of other projects, read as data alone and recognised by their keys."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from train.errors import CheckpointError, settings_checked
from train.models import Generator, create_generator, get_generator_class
from train.weights import PUBLISHED_NETWORKS

State = dict[str, Tensor]
_WRAPPERS = ("params_ema", "params", "state_dict", "model", "generator")
"""Keys under which projects store a state dict, the averaged weights first."""
_PREFIX = "module."
"""Prefix of all keys of a network that was saved inside DataParallel."""
_COUNTERS = "num_batches_tracked"
"""End of the keys of counters of training steps, which PyTorch adds where they are missing."""
_NAMED_KEYS = 3
"""Number of keys of each kind that an error names."""


@dataclass(frozen=True)
class _Match:
    """A state dict compared with that of a network."""

    network: str
    options: dict[str, Any]
    state: State
    """The state dict in the layout of our network."""
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]
    """Keys whose tensor has another shape."""

    @property
    def difference(self) -> int:
        """Number of keys that differ."""
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def describe(self) -> str:
        """Return which keys differ, in one line."""
        parts = (("missing", self.missing), ("unexpected", self.unexpected), ("of another shape", self.reshaped))
        texts = []
        for kind, keys in parts:
            if keys:
                more = ", ..." if len(keys) > _NAMED_KEYS else ""
                texts.append(f"{len(keys)} {kind}: {', '.join(keys[:_NAMED_KEYS])}{more}")
        return f"{self.network}: {'; '.join(texts)}"


def load_published(
    path: Path, *, network: str = "auto", options: Mapping[str, Any] | None = None
) -> tuple[Generator, dict[str, Any]]:
    """Return the generator of a weights file in eval mode, and its settings as in a run's `config.json`.

    `network`: its name, or `auto`. `options`: options of the network that weights do not tell, such as `pooling_px`.
    Raises CheckpointError if the file cannot be read, wants to run code, or is of another network, and UsageError for
    options that cannot be used.
    """
    match = recognise(read_state(path), path, network=network)
    all_options = match.options | dict(options or {})
    with settings_checked(hint="correct the option, see docs/networks.md"):
        generator = create_generator(match.network, **all_options)
    try:
        generator.load_state_dict(match.state)
    except RuntimeError as error:  # an option changed the layers
        reason = " ".join(str(error).split())
        raise CheckpointError(f"weights do not load ({reason})", path, hint="leave out the option") from error
    return generator.eval(), {"generator": match.network, "options": all_options}


def read_network(path: Path, *, network: str = "auto") -> tuple[str, dict[str, Any]]:
    """Return the name of the network of a weights file, and its options; raises CheckpointError."""
    match = recognise(read_state(path), path, network=network)
    return match.network, match.options


def read_state(path: Path) -> State:
    """Return the state dict in a weights file, freed of what is around it; raises CheckpointError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickles
            if path.suffix == ".safetensors":
                content: Any = safetensors.torch.load_file(path)
            else:
                content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        what = f"weights cannot be read ({error.strerror or error})"
        raise CheckpointError(what, path, hint="check the path") from error
    except Exception as error:  # torch.load raises whatever zipfile, pickle and struct raise
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None:
            what, hint = "no weights of PyTorch or safetensors, or damaged", "download the file again"
        else:
            what = f"the file wants to run code when it is loaded ({code[1]})"
            hint = "save the weights alone where they come from: torch.save(network.state_dict(), FILE)"
        raise CheckpointError(what, path, hint=hint) from error
    return _unwrap(content, path)


def _unwrap(content: Any, path: Path) -> State:
    """Return the state dict inside the dictionaries and prefixes that projects put around it, as float32."""
    while isinstance(content, dict):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), dict)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, dict) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError("the file holds no state dict", path, hint="give the weights of a network")
    state: State = {str(key): value for key, value in content.items()}
    while all(key.startswith(_PREFIX) for key in state):
        state = {key.removeprefix(_PREFIX): value for key, value in state.items()}
    if not all(torch.isfinite(value).all() for value in state.values()):
        raise CheckpointError("weights are NaN or infinite", path, hint="give another checkpoint")
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def recognise(state: State, path: Path, *, network: str = "auto") -> _Match:
    """Return the network whose keys and shapes are exactly those of a state dict.

    Raises CheckpointError, with the nearest network and the keys that differ, if there is none.
    """
    matches = []
    for name in PUBLISHED_NETWORKS if network == "auto" else (network,):
        match = _compare(name, state)
        if not match.difference:
            return match
        matches.append(match)
    nearest = min(matches, key=lambda match: match.difference)
    what = "weights are of no known network" if network == "auto" else f"weights are not of {network}"
    hint = f"give weights of {', '.join(PUBLISHED_NETWORKS)}, or export the network to ONNX where it comes from"
    raise CheckpointError(f"{what} (nearest {nearest.describe()})", path, hint=hint)


def _compare(name: str, state: State) -> _Match:
    """Return how a state dict differs from the network of the sizes in it, or of its default size if it has none."""
    kind = get_generator_class(name)
    state = kind.convert_keys(state)
    try:
        options = kind.read_options({key: list(value.shape) for key, value in state.items()})
        own = _list_shapes(name, options)
    except (KeyError, IndexError, ValueError):  # a key that says a size is missing, or there is no such network
        options = {}
        own = _list_shapes(name, options)
    shapes = {key: value.shape for key, value in state.items() if not key.endswith(_COUNTERS)}
    return _Match(
        name,
        options,
        state,
        missing=[key for key in own if key not in shapes],
        unexpected=[key for key in shapes if key not in own],
        reshaped=[key for key in own if key in shapes and own[key] != shapes[key]],
    )


def _list_shapes(name: str, options: dict[str, Any]) -> dict[str, torch.Size]:
    """Return the shapes of the weights of a network by key; raises ValueError for options that cannot be used."""
    with torch.device("meta"):
        state = create_generator(name, **options).state_dict()
    return {key: value.shape for key, value in state.items() if not key.endswith(_COUNTERS)}
