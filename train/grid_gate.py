"""Gate of generators that were trained with a discriminator: they must not lay a grid over images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.errors import EngineError
from runtime.metrics import GRID_MIN_PX, grid_codes
from train.checkpoint import load_generator
from train.data.blur import Image
from train.errors import CheckpointError
from train.models import Generator, restore_frames

GRID_MARGIN_CODES = 0.2
"""Largest difference of `grid_codes` to the network that training began with; half a code begins to be visible."""
MAX_IMAGES = 16
"""Number of images that are measured at most, evenly spread over those that are given."""


def has_discriminator(config: Mapping[str, Any]) -> bool:
    """Return whether the generator of a `config.json` was trained with a discriminator."""
    losses = config.get("losses")
    return bool(isinstance(losses, Mapping) and losses.get("adversarial"))


def require_no_grid(
    generator: Generator,
    config: Mapping[str, Any],
    pairs: Sequence[tuple[Image, Image]],
    *,
    path: str | Path,
    warn_only: bool = False,
) -> str:
    """Return a line with the mean `runtime.metrics.grid_codes` of what a generator restores, and of its reference.

    The reference is the generator that training began with (`init` of `config`), or the sharp images if there was none
    or it cannot be loaded. `pairs`: blurred and sharp images, uint8[H, W, 3] BGR; those of fewer than `GRID_MIN_PX`
    pixels a side are left out. Raises EngineError if the mean is above that of the reference by more than
    `GRID_MARGIN_CODES`, unless `warn_only`. The line is empty if no image is large enough.
    """
    large = [pair for pair in pairs if min(pair[0].shape[:2]) >= GRID_MIN_PX]
    if not large:
        return ""
    rows = np.unique(np.linspace(0, len(large) - 1, MAX_IMAGES).round().astype(int))
    blurred, sharp = zip(*(large[row] for row in rows), strict=True)
    codes = _mean_codes(_restorer(generator), blurred)
    reference, name = _mean_codes(lambda image: image, sharp), "the sharp images have"
    if config.get("init"):
        try:
            reference = _mean_codes(_restorer(load_generator(Path(config["init"]))[0]), blurred)
            name = f"the network that training began with, {Path(config['init']).name}, has"
        except CheckpointError:
            name = f"the sharp images have ({config['init']} cannot be loaded)"
    line = f"grid of 4 pixels: {codes:.2f} codes, {name} {reference:.2f}"
    if codes > reference + GRID_MARGIN_CODES and not warn_only:
        hint = "train with losses.grid_l1 or a smaller losses.adversarial, see docs/quality.md"
        raise EngineError(f"{line}, and {GRID_MARGIN_CODES} more is allowed", path, hint=hint)
    return line


def _restorer(generator: Generator) -> Callable[[Image], Image]:
    device = next(generator.parameters()).device

    def restore(image: Image) -> Image:
        restored: Image = restore_frames(generator, torch.from_numpy(image[np.newaxis]).to(device))[0].cpu().numpy()
        return restored

    return restore


def _mean_codes(restore: Callable[[Image], Image], images: Sequence[Image]) -> float:
    return float(np.mean([grid_codes(restore(image)) for image in images]))
