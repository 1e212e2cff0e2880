"""`python -m train --data PHOTOS --out RUN`: train a generator on sharp photographs."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import sys
from pathlib import Path

from train.checkpoint import CheckpointError
from train.config import TrainConfig
from train.data import DataError
from train.loop import DivergedError, train

EXIT_CODES: dict[type[Exception], int] = {
    ValueError: 2,
    DataError: 3,
    CheckpointError: 4,
    OSError: 6,
    DivergedError: 8,
}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of sharp photographs")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder for weights, log and state")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--max-steps", type=int, metavar="N", help="the same as --set steps=N")
    parser.add_argument("--resume", action="store_true", help="go on from RUN/state.pt")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    return parser.parse_args(arguments)


def config_from(overrides: list[str]) -> TrainConfig:
    """The recipe with `KEY=VALUE` overrides, `blur.KEY` for the blur's; raises ValueError."""
    config = TrainConfig()
    for override in overrides:
        name, _, text = override.partition("=")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        try:
            if name.startswith("blur."):
                blur = dataclasses.replace(config.blur, **{name.removeprefix("blur."): value})
                config = dataclasses.replace(config, blur=blur)
            else:
                config = dataclasses.replace(config, **{name: value})
        except TypeError as error:
            raise ValueError(f"--set {override}: {error}") from error
    return config


def main() -> int:
    arguments = parse()
    overrides = arguments.set + ([f"steps={arguments.max_steps}"] if arguments.max_steps is not None else [])
    try:
        config = config_from(overrides)
        print(config.to_json())
        train(config, data=arguments.data, run=arguments.out, resume=arguments.resume, device=arguments.device)
    except tuple(EXIT_CODES) as error:
        print(f"error: {error}", file=sys.stderr)
        return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
