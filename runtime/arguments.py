"""Types of command-line options that several commands share."""

from __future__ import annotations

import argparse
import re

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
