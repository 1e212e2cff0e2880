"""Types of command-line options that several commands share."""

from __future__ import annotations

import argparse
import re

from runtime.frame import Size


def parse_size(text: str) -> Size:
    """Parse `1280x720` to (1280, 720), as argparse's `type`."""
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1280x720, got {text!r}")
    return int(match[1]), int(match[2])
