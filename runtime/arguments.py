"""Types of command-line options that several commands share."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable

from runtime.frame import Size

_MAX_SIDE_PX = 65_535


def parse_size(text: str) -> Size:
    """Parse `1280x720` to (1280, 720), as argparse's `type`."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not match or max(int(match[1]), int(match[2])) > _MAX_SIDE_PX:
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT such as 1280x720, both up to {_MAX_SIDE_PX}, got {text!r}"
        )
    return int(match[1]), int(match[2])


def number_in(low: float, high: float) -> Callable[[str], float]:
    """Return an argparse `type` for numbers from `low` to `high`; NaN and infinity are refused."""

    def number(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:.10g}, got {text}")
        return value

    return number


def whole_number_in(low: int, high: int) -> Callable[[str], int]:
    """Return an argparse `type` for whole numbers from `low` to `high`."""

    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text[:40]}")
        return value

    return number
