"""Pairs as they lie on disk: pictures of equal names in `blur/` and `sharp/`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
from tqdm import tqdm

from train.data.blur import Image


def write_pairs(pairs: Iterable[tuple[str, Image, Image]], out: Path) -> int:
    """Write names with their blurred and sharp uint8[H, W, 3] BGR as PNG; returns how many.

    Raises ValueError where there are pairs already, and OSError.
    """
    if any((out / kind).exists() for kind in ("blur", "sharp")):
        raise ValueError(f"pairs are there already; give another --out: {out}")
    count = 0
    for name, blurred, sharp in tqdm(pairs, unit="pair", leave=False):
        for kind, picture in (("blur", blurred), ("sharp", sharp)):
            (out / kind).mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(out / kind / f"{name}.png"), picture):
                raise OSError(f"cannot write there: {out / kind}")
        count += 1
    return count
