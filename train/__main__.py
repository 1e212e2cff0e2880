"""`python -m train --recipe two_stage --data DIR --out RUN`: train a generator."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

import torch

from train.checkpoint import CheckpointError, has_state
from train.config import RECIPES, Recipe, overridden
from train.data import DataError
from train.interrupt import InterruptedRunError
from train.loop import DivergedError, train
from train.models import GENERATORS

EXIT_CODES: dict[type[Exception], int] = {
    ValueError: 2,
    DataError: 3,
    CheckpointError: 4,
    OSError: 6,
    torch.OutOfMemoryError: 7,
    DivergedError: 8,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    add = parser.add_argument
    add("--recipe", choices=RECIPES, default="edge", help="settings to start from (default: edge)")
    add("--data", type=Path, required=True, metavar="DIR", help="GOPRO_Large, blur/ and sharp/, or sharp photographs")
    add("--out", type=Path, required=True, metavar="RUN", help="folder for weights, log and state")
    add("--generator", choices=GENERATORS, help="another network than the recipe's")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, as losses.mse=0.5")
    add("--max-steps", type=int, metavar="N", help="the same as --set max_steps=N")
    add("--resume", action="store_true", help="go on from the state in RUN")
    add("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    return parser.parse_args(arguments)


def recipe_from(arguments: argparse.Namespace) -> Recipe:
    """The recipe with all overrides; raises ValueError."""
    recipe = RECIPES[arguments.recipe]
    if arguments.generator and arguments.generator != recipe.generator:
        recipe = dataclasses.replace(recipe, generator=arguments.generator, options={})
    overrides = arguments.set + ([f"max_steps={arguments.max_steps}"] if arguments.max_steps is not None else [])
    changed: Recipe = overridden(recipe, overrides)
    return changed


def main() -> int:
    arguments = parse()
    # A process that torchrun starts again after a failure goes on where the run was saved.
    restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0" and has_state(arguments.out)
    try:
        recipe = recipe_from(arguments)
        if os.environ.get("RANK", "0") == "0":
            print(recipe.to_json())
        resume = arguments.resume or restarted
        train(recipe, data=arguments.data, run=arguments.out, resume=resume, device=arguments.device)
    except InterruptedRunError as stop:
        print(stop, file=sys.stderr)
        return stop.exit_code
    except tuple(EXIT_CODES) as error:
        print(f"error: {error}", file=sys.stderr)
        return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
