"""Statements of a user about a foreign ONNX file: pixel range, channels, and the multiple of the frame sizes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from runtime.arguments import whole_number_in
from runtime.errors import UsageError

Range = Literal["0..1", "-1..1", "0..255"]
"""Values of black and of full white."""
Channels = Literal["rgb", "bgr", "gray"]
RANGES: dict[Range, tuple[float, float]] = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "0..255": (0.0, 255.0)}
MAX_MULTIPLE = 256
"""Largest multiple of the frame sizes that is tried or may be given."""


@dataclass(frozen=True, kw_only=True)
class ForeignOptions:
    """Statements about a foreign ONNX file; what is None is found out by experiment."""

    range: Range | None = None
    channels: Channels | None = None
    multiple_of: int | None = None


def add_foreign_options(parser: argparse.ArgumentParser) -> None:
    """Add the option group for foreign ONNX files to a parser."""
    add = parser.add_argument_group("foreign ONNX files").add_argument
    found = "(default: what restores the pairs best)"
    add("--range", choices=get_args(Range), help=f"values of black and white that MODEL.onnx takes and gives {found}")
    add("--channels", choices=get_args(Channels), help=f"channels that MODEL.onnx takes and gives {found}")
    add(
        "--multiple-of",
        type=whole_number_in(1, MAX_MULTIPLE),
        metavar="N",
        help="divisor of every height and width in pixels that MODEL.onnx takes (default: the smallest that works)",
    )


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
    """Return the options of a command line; raises UsageError if they are given for another kind of checkpoint."""
    options = ForeignOptions(range=namespace.range, channels=namespace.channels, multiple_of=namespace.multiple_of)
    if options != ForeignOptions() and not is_foreign:
        raise UsageError(
            "--range, --channels and --multiple-of are for ONNX files; a run or weights state them",
            hint="leave them out, or give MODEL.onnx",
        )
    return options
