"""Whether an engine does what the network does, and what it gives on true pairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from runtime.engines import Engine
from runtime.errors import InputError
from runtime.frame import Pixels
from runtime.metrics import psnr_db
from runtime.sources.images import is_picture, read_picture
from train.models import Generator, restore

IDENTICAL_DB = 99.0
"""Stands for an infinite PSNR, in files that have no infinity."""
_SIZES = ((1, 1), (37, 50), (64, 96), (121, 83))


def sample_frames(seed: int = 0) -> Iterator[Pixels]:
    """Smooth random frames uint8[1, H, W, 3] of awkward sizes, for agreement alone."""
    rng = np.random.default_rng(seed)
    for height, width in _SIZES:
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, height // 6 + 2, width // 6 + 2)))
        smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 255)
        yield smooth.round().permute(0, 2, 3, 1).to(torch.uint8).numpy()


def agreement_db(engine: Engine, generator: Generator, frames: Iterator[Pixels]) -> float:
    """The least PSNR in dB of the engine's frames against the network's; 99 where all are equal."""
    least = min(psnr_db(engine.infer(frame), restore(generator, torch.from_numpy(frame)).numpy()) for frame in frames)
    return min(least, IDENTICAL_DB)


def read_pairs(folder: Path) -> Iterator[tuple[Pixels, Pixels]]:
    """Blurred and sharp pictures from `blur/` and `sharp/`, matched by name; raises InputError."""
    blurred = sorted(path for path in (folder / "blur").glob("*") if is_picture(path))
    if not blurred:
        raise InputError("no pairs found", folder, hint="give a folder with blur/ and sharp/ in it")
    for path in blurred:
        blurred_picture, sharp = read_picture(path), read_picture(folder / "sharp" / path.name)
        if blurred_picture.shape != sharp.shape:
            raise InputError("the pictures of a pair differ in size", path, hint="scale them alike, or remove the pair")
        yield blurred_picture, sharp


def mean_psnr_db(engine: Engine, pairs: Iterator[tuple[Pixels, Pixels]]) -> tuple[float, float]:
    """Mean PSNR in dB of the blurred pictures and of the engine's, each against the sharp ones."""
    scores = [(psnr_db(blur, sharp), psnr_db(engine.infer(blur[np.newaxis])[0], sharp)) for blur, sharp in pairs]
    before, after = np.mean(scores, axis=0)
    return float(before), float(after)
