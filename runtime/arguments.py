"""What several command lines read alike."""

from __future__ import annotations

import argparse
import re

Size = tuple[int, int]
"""Width and height in pixels."""


def size(text: str) -> Size:
    """`1280x720` -> (1280, 720); for argparse's `type`."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1280x720, got {text!r}")
    return int(found[1]), int(found[2])
