"""`python -m train --recipe two_stage --data DIR --out RUN`: train a generator."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from train.checkpoint import has_state
from train.config import RECIPES, Recipe, overridden
from train.exit_codes import to_its_end
from train.models import GENERATORS
from train.training.loop import LAUNCH, launch_id, train


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    add = parser.add_argument
    add("--recipe", choices=RECIPES, default="edge-s", help="settings to start from (default: edge-s)")
    add(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="GOPRO_Large, blur/ and sharp/, or sharp photographs; again for each folder",
    )
    add("--out", type=Path, required=True, metavar="RUN", help="folder for weights, log and state")
    add("--generator", choices=GENERATORS, help="another network than the recipe's")
    add("--init", metavar="C", help="begin with the weights of a checkpoint")
    add("--teacher", metavar="C", help="learn from the pictures of this checkpoint, too")
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
    given = {name: getattr(arguments, name) for name in ("init", "teacher") if getattr(arguments, name)}
    recipe = dataclasses.replace(recipe, **given)
    overrides = arguments.set + ([f"max_steps={arguments.max_steps}"] if arguments.max_steps is not None else [])
    changed: Recipe = overridden(recipe, overrides)
    return changed


def is_restart(run: Path) -> bool:
    """Whether torchrun starts this process again after a failure, so that it goes on where the run was saved.

    A run that an earlier launch left there is no reason to go on.
    """
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or not has_state(run):
        return False
    return (run / LAUNCH).exists() and (run / LAUNCH).read_text() == launch_id()


def run(arguments: argparse.Namespace) -> None:
    """Show the recipe, and train by it."""
    recipe = recipe_from(arguments)
    if os.environ.get("RANK", "0") == "0":
        print(recipe.to_json())
    resume = arguments.resume or is_restart(arguments.out)
    train(recipe, data=arguments.data, run=arguments.out, resume=resume, device=arguments.device)


def main() -> int:
    arguments = parse()
    return to_its_end(lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
