"""State dicts of published networks with seeded values, and the outputs that the official code computed from them.

`published/README.md` says how the files were made.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).parent / "published"


def seeded_input(height: int, width: int, low: float = 0.0) -> torch.Tensor:
    """Return float32[1, 3, H, W] in [low, 1]: smooth, as images are, with some noise."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [np.sin(rows / (3 + channel)) * np.cos(columns / (5 - channel)) for channel in range(3)]
    values = 0.5 + 0.35 * np.stack(waves) + 0.05 * rng.standard_normal((3, height, width))
    return torch.from_numpy((low + (1 - low) * values.clip(0, 1)).astype(np.float32))[None]


def seeded_values(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return values for a weight, drawn from a generator that its name seeds; sizes are those of trained networks."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    values = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if key.endswith("running_var"):
        values = 0.5 + np.abs(values)
    elif (len(shape) == 1 and key.endswith("weight")) or key.endswith("temperature"):
        values = 1 + 0.2 * values  # scale of a normalisation
    elif len(shape) < 2 or shape[0] == 1:
        values = 0.2 * values
    else:
        values = 0.6 * values / np.sqrt(np.prod(shape[1:]))  # deep stacks of residual blocks stay small
    return torch.from_numpy(values.astype(np.float32))


def seeded_state(name: str) -> dict[str, torch.Tensor]:
    """Return a state dict with the keys and shapes of the official code and seeded values."""
    state = {}
    for line in np.load(FOLDER / f"{name}.npz")["layout"]:
        key, shape, seed_key = str(line).split(" ")
        state[key] = seeded_values(seed_key, tuple(int(size) for size in shape.split(",") if size))
    return state


def official_output(name: str, kind: str = "output") -> torch.Tensor:
    """Return what the official code computed from the seeded state and input."""
    return torch.from_numpy(np.load(FOLDER / f"{name}.npz")[kind])
