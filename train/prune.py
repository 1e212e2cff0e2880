"""`python -m train.prune --checkpoint RUN --keep 0.75 --out DIR`: remove the channels that matter least.

The result is a smaller network of the same kind, with the weights of the channels that are kept. It is a checkpoint as
`python -m train` writes it: fine-tune it with the command that is printed, then export it.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

from runtime.errors import UsageError
from runtime.parser import CommandParser
from train.checkpoint import load_generator, load_recipe, publish, require_no_network
from train.command import run_command
from train.config import Recipe
from train.errors import settings_checked
from train.models import Generator, create_generator
from train.models.channels import cut_channels, measure_groups, select_channels


def prune(generator: Generator, recipe: Recipe, *, keep: float) -> tuple[Generator, Recipe]:
    """Return a network with a share of the channels of each layer, and the recipe with its options.

    Numbers of channels are rounded to multiples of 8, which kernels of GPUs and CPUs work on. Raises UsageError for a
    network that cannot be pruned, and for a share that leaves it as it is.
    """
    with settings_checked("give an edge or a two_stage_cnn, and a share between 0 and 1"):
        if not 0 < keep < 1:
            raise ValueError(f"--keep must lie between 0 and 1, got {keep}")
        layers = generator.list_layers()
        options = recipe.options | {"widths": tuple(_narrow(width, keep) for width in generator.widths)}
        if options.get("half_widths"):
            options["half_widths"] = tuple(_narrow(width, keep) for width in options["half_widths"])
        smaller = create_generator(recipe.generator, **options)
    state = generator.state_dict()
    kept = measure_groups(layers, smaller.state_dict())
    if kept == measure_groups(layers, state):
        raise UsageError(f"--keep {keep} removes no channels, which are rounded to multiples of 8", hint="keep fewer")
    smaller.load_state_dict(cut_channels(layers, state, select_channels(layers, state, kept)))
    return smaller.eval(), dataclasses.replace(recipe, options=options)


def _narrow(width: int, keep: float) -> int:
    """Return a share of a number of channels, rounded to a multiple of 8, and at least 8."""
    return min(width, max(8, 8 * round(keep * width / 8)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m train.prune`."""
    parser = CommandParser("train.prune", description=__doc__)
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="C",
        help="run of an edge or a two_stage_cnn, as python -m train wrote it",
    )
    add("--keep", type=float, required=True, metavar="SHARE", help="share of the channels of each layer that stays")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the smaller network")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m train.prune` and return its exit code."""
    options = parse(arguments)

    def command(_: object) -> None:
        require_no_network(options.out)
        generator, _ = load_generator(options.checkpoint)
        smaller, recipe = prune(generator, load_recipe(options.checkpoint), keep=options.keep)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        publish(smaller, recipe.to_json(), options.out)
        before, after = (sum(weight.numel() for weight in each.parameters()) for each in (generator, smaller))
        print(f"{before:,} -> {after:,} parameters, widths {recipe.options['widths']}: {options.out}")
        settings = shlex.quote(f"options={recipe.options!r}")  # all of them: one by one, they would join the recipe's
        start = f"python -m train --network {recipe.generator} --init {shlex.quote(str(options.out))}"
        print(f"fine-tune it: {start} --set {settings} --data ... --out ...")

    return run_command(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
