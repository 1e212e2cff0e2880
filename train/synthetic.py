"""`python -m train.synthetic --source PHOTOS --out DIR`: make pairs from sharp photographs, to measure networks on.

The photographs are blurred along random camera paths (`train/data/blur.py`). The same photographs always give the same
pairs, which are those that `train.evaluate` makes of them.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from runtime.cli import say
from runtime.parser import CommandParser
from train.checkpoint import load_recipe
from train.command import run_command
from train.config import DataConfig
from train.data.blur import BlurConfig
from train.data.datasets import ImageDataset
from train.data.index import check_images, describe_blurred, find_samples
from train.data.pairs import write_pairs
from train.errors import DataError
from train.recipes import RECIPES


def write_synthetic_pairs(source: Path, *, out: Path, blur: BlurConfig) -> int:
    """Write a pair for each photograph below `source`, named by its path, and return the number of pairs.

    Raises DataError if `source` holds pairs or images that cannot be used, UsageError if `out` holds pairs, and
    OutputError.
    """
    found = find_samples(source)
    samples = [*found.train, *found.test]
    if any(sample.blurred for sample in samples):
        raise DataError("this folder holds pairs", source, hint="give a folder of sharp photographs only")
    if note := describe_blurred(found):
        say(note)
    config = DataConfig(view="whole", blur=blur)
    check_images(samples, config, where=str(source), same_size=False)
    dataset = ImageDataset(samples, config, seed=0, augment=False)
    names = ["_".join(sample.sharp.relative_to(source).with_suffix("").parts) for sample in samples]
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise DataError(f"several photographs would become {repeated[0]}.png", source, hint="rename one of them")
    return write_pairs(((name, *dataset[0, row]) for row, name in enumerate(names)), out)


def choose_blur(checkpoint: Path | None) -> BlurConfig:
    """Return the synthetic blur of a checkpoint's training, or of the `edge-s` recipe; raises CheckpointError."""
    recipe = load_recipe(checkpoint) if checkpoint else RECIPES["edge-s"]
    return recipe.data.blur


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m train.synthetic`."""
    parser = CommandParser("train.synthetic", description=__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, metavar="PHOTOS", help="folder of sharp photographs")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the pairs, in blur/ and sharp/")
    add("--blur-as", type=Path, metavar="C", help="checkpoint whose training blur is used (default: the edge recipes')")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m train.synthetic` and return its exit code."""
    options = parse(arguments)

    def command(_: object) -> None:
        count = write_synthetic_pairs(options.source, out=options.out, blur=choose_blur(options.blur_as))
        print(f"{count} pairs: {options.out}")

    return run_command(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
