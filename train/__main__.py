"""`python -m train --recipe two_stage --data DIR --out RUN`: train a generator."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import get_args

from runtime.errors import UsageError
from runtime.interrupt import Interruption
from runtime.parser import CommandParser
from train.checkpoint import has_state
from train.command import run_command
from train.config import Recipe, apply_overrides
from train.errors import settings_checked
from train.models import GENERATORS
from train.published import read_network
from train.recipes import RECIPES
from train.training.distributed import is_started_by_torchrun
from train.training.loop import is_of_this_launch, train
from train.training.services import Service
from train.weights import is_published

PLAIN_OPTIONS = {"--epochs": "epochs", "--batch": "batch", "--lr": "learning_rate", "--max-steps": "max_steps"}
"""Options that are short forms of `--set`, with the setting of each."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m train`."""
    parser = CommandParser("train", description=__doc__)
    group = parser.add_argument_group("input and output")
    group.add_argument(
        "--data",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="folder of images: GOPRO_Large, blur/ and sharp/, or sharp photographs; repeat the option for more",
    )
    group.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="RUN",
        help="folder for the weights, the log and the state of the run",
    )
    group.add_argument("--resume", action="store_true", help="continue the run in RUN from its last saved state")
    group = parser.add_argument_group("recipe")
    group.add_argument("--recipe", choices=RECIPES, default="edge-s", help="settings to start from (default: edge-s)")
    group.add_argument(
        "--network",
        "--generator",
        dest="generator",
        choices=GENERATORS,
        help="network to train (default: that of the weights of a published network in --init, or of the recipe)",
    )
    group.add_argument(
        "--init",
        metavar="C",
        help="run or weights of a published network (.pth, .safetensors) that training begins with (default: random)",
    )
    group.add_argument(
        "--teacher",
        metavar="C",
        help="run or weights of a better network, whose output is learned from too (default: none)",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="setting to change, such as losses.mse=0.5; repeat the option for more settings",
    )
    group = parser.add_argument_group("length of the training, short forms of --set")
    group.add_argument(
        "--epochs", type=int, metavar="N", help="number of passes over the images (default: the recipe's)"
    )
    group.add_argument(
        "--batch", type=int, metavar="N", help="number of image pairs in a step of one process (default: the recipe's)"
    )
    group.add_argument(
        "--lr", type=float, metavar="RATE", help="learning rate of both networks (default: the recipe's)"
    )
    group.add_argument("--max-steps", type=int, metavar="N", help="number of steps to stop after (default: all epochs)")
    group = parser.add_argument_group("log, besides log.jsonl and TensorBoard")
    group.add_argument(
        "--log",
        choices=get_args(Service),
        action="append",
        default=[],
        help="service that records the numbers and sample images too; repeat the option for both (default: none)",
    )
    group = parser.add_argument_group("device and errors")
    group.add_argument("--device", default="cpu", help="torch device to train on: cpu, cuda, ... (default: cpu)")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def list_plain_overrides(options: argparse.Namespace) -> list[str]:
    """Return the plain options as `KEY=VALUE`; raises UsageError for one whose setting `--set` changes too."""
    keys = [override.partition("=")[0] for override in options.set]
    overrides = []
    for option, key in PLAIN_OPTIONS.items():
        value = getattr(options, option.removeprefix("--").replace("-", "_"))
        if value is None:
            continue
        if key in keys:
            raise UsageError(f"{option} and --set {key}=... change the same setting", hint="give one of them")
        overrides.append(f"{key}={value!r}")
    return overrides


def build_recipe(
    name: str,
    *,
    generator: str | None = None,
    init: str | None = None,
    teacher: str | None = None,
    overrides: list[str] | None = None,
) -> Recipe:
    """Return a recipe with the changes of the command line.

    `generator`: another network than the recipe's, with its default options. If `init` is a weights file of another
    project, network and options are those of the weights. Raises UsageError if a setting cannot be used, and
    CheckpointError if the weights are of no known network.
    """
    with settings_checked():
        recipe = RECIPES[name]
        if init and is_published(Path(init)):
            generator, options = read_network(Path(init), network=generator or "auto")
            recipe = dataclasses.replace(recipe, generator=generator, options=options)
        if generator and generator != recipe.generator:
            recipe = dataclasses.replace(recipe, generator=generator, options={})
        recipe = dataclasses.replace(recipe, init=init or recipe.init, teacher=teacher or recipe.teacher)
        return apply_overrides(recipe, overrides or [])


def is_restart(run: Path) -> bool:
    """Whether torchrun started this process again after a failure, so that the run is resumed from its state.

    The state of an earlier launch does not count.
    """
    is_restarted = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return is_restarted and has_state(run) and is_of_this_launch(run)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m train` and return its exit code."""
    options = parse(arguments)

    def command(interruption: Interruption) -> None:
        if is_started_by_torchrun():
            interruption.release()  # torchrun ends its processes itself
        recipe = build_recipe(
            options.recipe,
            generator=options.generator,
            init=options.init,
            teacher=options.teacher,
            overrides=options.set + list_plain_overrides(options),
        )
        resume = options.resume or is_restart(options.out)
        train(recipe, data=options.data, run=options.out, resume=resume, device=options.device, services=options.log)

    return run_command(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
