"""`python -m train.interpolate --from A --to B --share 0.7 --out DIR`: mix the weights of two trainings of one network.

Between a network that is trained for PSNR and one that was trained on from it with a discriminator lie others, each a
compromise between being true and looking sharp, without a training of its own (Wang et al. 2018, ESRGAN, section 3.4).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from runtime.errors import UsageError
from runtime.parser import CommandParser
from train.checkpoint import load_generator, load_recipe, publish, require_no_network
from train.command import run_command


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], *, share: float) -> dict[str, Tensor]:
    """Return `(1 - share) start + share end` for two state dicts; raises UsageError if they are of other networks.

    Values that are no floating-point numbers, such as counters, are those of `end`.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"--share must be from 0 to 1, got {share}", hint="0 is the first network, 1 the second")
    shapes, end_shapes = ({name: weight.shape for name, weight in state.items()} for state in (start, end))
    if shapes != end_shapes:
        raise UsageError("the weights differ in names or shapes", hint="give two runs of one network")
    return {
        name: start[name].lerp(weight, share) if weight.is_floating_point() else weight for name, weight in end.items()
    }


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m train.interpolate`."""
    parser = CommandParser("train.interpolate", description=__doc__)
    add = parser.add_argument
    add("--from", dest="start", type=Path, required=True, metavar="A", help="run or weights of the first network")
    add(
        "--to",
        dest="end",
        type=Path,
        required=True,
        metavar="B",
        help="run that was trained on from it; its settings are kept",
    )
    add("--share", type=float, required=True, metavar="S", help="share of B, from 0 to 1")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the mixed network")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m train.interpolate` and return its exit code."""
    options = build_parser().parse_args(arguments)

    def command(_: object) -> None:
        require_no_network(options.out)
        start, end = (load_generator(path)[0] for path in (options.start, options.end))
        end.load_state_dict(interpolate(start.state_dict(), end.state_dict(), share=options.share))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        publish(end, load_recipe(options.end).to_json(), options.out)
        print(f"{options.share:g} of {options.end}, {1 - options.share:g} of {options.start}: {options.out}")

    return run_command(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
