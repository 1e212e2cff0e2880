"""`python -m train.synthetic --source PHOTOS --out DIR`: pairs out of sharp photographs, to measure on.

They are what `train.evaluate` shows a model of the same photographs: blurred along random camera paths
(`train/data/blur.py`), the same ones each time.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from train.checkpoint import load_generator
from train.config import RECIPES, DataConfig, Recipe
from train.data.blur import BlurConfig
from train.data.datasets import Pictures
from train.data.index import DataError, check, find_samples
from train.data.pairs import write_pairs
from train.exit_codes import to_its_end


def write_blurred(options: argparse.Namespace) -> None:
    """Write a pair for each photograph, named by its path, and say how many."""
    found = find_samples(options.source)
    samples = [*found.train, *found.test]
    if any(sample.blurred for sample in samples):
        raise DataError(f"there are pairs already; give a folder of sharp photographs alone: {options.source}")
    config = DataConfig(view="whole", blur=blur_of(options.blur_as))
    check(samples, config, where=str(options.source), same_size=False)
    pictures = Pictures(samples, config, seed=0, augment=False)
    names = ("_".join(each.sharp.relative_to(options.source).with_suffix("").parts) for each in samples)
    count = write_pairs(((name, *pictures[0, row]) for row, name in enumerate(names)), options.out)
    print(f"{count} pairs: {options.out}")


def blur_of(checkpoint: Path | None) -> BlurConfig:
    """What a checkpoint was trained to undo; without one, what `edge-s` is."""
    if checkpoint is None:
        return RECIPES["edge-s"].data.blur
    _, config = load_generator(checkpoint)
    return Recipe.from_json(json.dumps(config)).data.blur


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.synthetic", description=__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, metavar="PHOTOS", help="folder of sharp photographs")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for blur/ and sharp/")
    add("--blur-as", type=Path, metavar="C", help="blur as this checkpoint was trained (default: as the edge recipes)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return to_its_end(lambda: write_blurred(options))


if __name__ == "__main__":
    sys.exit(main())
