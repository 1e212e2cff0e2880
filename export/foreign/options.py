"""Statements of a user about a foreign ONNX file: pixel range, channels, and the multiple of the frame sizes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from export.foreign.ranges import RANGES, Channels, PixelRange, normalize_range
from runtime.arguments import whole_number_in
from runtime.errors import UsageError

MAX_MULTIPLE = 256
"""Largest multiple of the frame sizes that is tried or may be given."""
_MAX_STD = 100.0


@dataclass(frozen=True, kw_only=True)
class ForeignOptions:
    """Statements about a foreign ONNX file; what is None is found out by experiment."""

    range: PixelRange | None = None
    """Values of black and white in the images that it takes."""
    channels: Channels | None = None
    multiple_of: int | None = None


def add_foreign_options(parser: argparse.ArgumentParser) -> None:
    """Add the option group for foreign ONNX files to a parser."""
    add = parser.add_argument_group("foreign ONNX files").add_argument
    found = "(default: what restores the pairs best)"
    add(
        "--range",
        choices=tuple(RANGES),
        help="values of black and white that MODEL.onnx takes; imagenet is the mean and standard deviation of "
        f"torchvision; what it gives is found out {found}",
    )
    add(
        "--mean",
        type=_numbers_in(-1, 1),
        metavar="R,G,B",
        help="mean that is subtracted from images in 0..1 before MODEL.onnx, in place of --range (default: none)",
    )
    add(
        "--std",
        type=_numbers_in(1e-3, _MAX_STD),
        metavar="R,G,B",
        help="standard deviation that images in 0..1 are divided by, with --mean (default: 1,1,1)",
    )
    add("--channels", choices=get_args(Channels), help=f"channels that MODEL.onnx takes and gives {found}")
    add(
        "--multiple-of",
        type=whole_number_in(1, MAX_MULTIPLE),
        metavar="N",
        help="divisor of every height and width in pixels that MODEL.onnx takes (default: the smallest that works)",
    )


def _numbers_in(low: float, high: float) -> Callable[[str], tuple[float, ...]]:
    """Return an argparse `type` for one number, or three with commas; NaN and infinity are refused."""

    def numbers(text: str) -> tuple[float, ...]:
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) not in {1, 3} or not all(low <= value <= high for value in values):
            hint = "; divide values for 0..255 by 255"
            raise argparse.ArgumentTypeError(
                f"expected R,G,B for images in 0..1, {low:g} to {high:g}, got {text}{hint}"
            )
        return values

    return numbers


def join_range(arguments: Sequence[str]) -> list[str]:
    """Return a command line whose `--range -1..1` is one word: argparse would take -1..1 for an option."""
    joined: list[str] = []
    for argument in arguments:
        if argument == "-1..1" and joined and joined[-1] == "--range":
            joined[-1] = "--range=-1..1"
        else:
            joined.append(argument)
    return joined


def read_foreign_options(namespace: argparse.Namespace, *, is_foreign: bool) -> ForeignOptions:
    """Return the options of a command line; raises UsageError if they contradict or are for another checkpoint."""
    options = ForeignOptions(
        range=_read_range(namespace), channels=namespace.channels, multiple_of=namespace.multiple_of
    )
    if options != ForeignOptions() and not is_foreign:
        raise UsageError(
            "--range, --mean, --std, --channels and --multiple-of are for ONNX files; a run or weights state them",
            hint="leave them out, or give MODEL.onnx",
        )
    return options


def _read_range(namespace: argparse.Namespace) -> PixelRange | None:
    if namespace.mean is None and namespace.std is None:
        return RANGES[namespace.range] if namespace.range else None
    if namespace.range:
        raise UsageError("--range and --mean or --std say the same", hint="leave one of them out")
    if namespace.channels == "gray" and len(namespace.mean or ()) + len(namespace.std or ()) > 2:
        raise UsageError("a gray image has one mean and one standard deviation", hint="write them as --mean 0.5")
    return normalize_range(namespace.mean or (0.0,), namespace.std or (1.0,))
