"""Image pairs on disk: images of equal names in `blur/` and `sharp/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
from tqdm import tqdm

from runtime.errors import UsageError
from runtime.files import output_error
from train.data.blur import Image


def write_pairs(pairs: Iterable[tuple[str, Image, Image]], out: Path) -> int:
    """Write pairs as PNG files and return their number.

    `pairs`: name without suffix, blurred and sharp image, uint8[H, W, 3] BGR each. Raises UsageError if `out` holds
    pairs already, and OutputError if it cannot be written.
    """
    if any((out / kind).exists() for kind in ("blur", "sharp")):
        raise UsageError("this folder holds pairs already", out, hint="give another --out")
    count = 0
    for name, blurred, sharp in tqdm(pairs, unit="pair", leave=False, disable=None):
        for kind, image in (("blur", blurred), ("sharp", sharp)):
            (out / kind).mkdir(parents=True, exist_ok=True)
            path = out / kind / f"{name}.png"
            try:
                path.write_bytes(cv2.imencode(".png", image)[1].tobytes())  # cv2.imwrite crashes of some names
            except OSError as error:
                raise output_error(path, error) from error
        count += 1
    return count
