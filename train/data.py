"""Training pairs: crops of sharp photographs, blurred once and kept on disk.

Decoding and blurring cost more than a training step of a small network, so both are done once,
in threads (OpenCV works outside Python's lock), into two flat uint8 arrays that the loop reads
through memory maps.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from train.blur import BlurConfig, Image, blurred_pair
from train.config import TrainConfig

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
CROPS_PER_TASK = 8
VALIDATION_SHARE = 16
"""One photograph in this many is held out."""
VALIDATION_PAIRS = 192
FLAT_SIGMA = 6.0
"""Crops whose gray values deviate by less than this many codes teach little and are redrawn."""


class DataError(ValueError):
    """The folder given as `--data` cannot be trained on."""


def find_photos(folder: Path) -> list[Path]:
    """All photographs below a folder, sorted; raises DataError if there are fewer than two."""
    photos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PHOTO_SUFFIXES)
    if len(photos) < 2:
        raise DataError(f"found {len(photos)} photographs; give a folder with at least two: {folder}")
    return photos


class Pairs:
    """Blurred and sharp crops, uint8[N, S, S, 3] each, read from disk as they are needed."""

    def __init__(self, folder: Path) -> None:
        self.blurred: NDArray[np.uint8] = np.load(folder / "blurred.npy", mmap_mode="r")
        self.sharp: NDArray[np.uint8] = np.load(folder / "sharp.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.sharp)

    def batch(self, rows: NDArray[np.int64], turns: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """float32[len(rows), 3, S, S] blurred and sharp in [0, 1], both flipped and turned alike.

        `turns`: 0 to 7 for each row, one of the eight symmetries of the square.
        """
        return _planes(self.blurred, rows, turns), _planes(self.sharp, rows, turns)

    def batches(self, *, batch: int, seed: int, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of the steps `start` to `stop`; each depends on `seed` and its step alone."""
        for step in range(start, stop):
            rng = np.random.default_rng((seed, step))
            yield self.batch(rng.integers(len(self), size=batch), rng.integers(8, size=batch))


def prepare(data: Path, cache: Path, config: TrainConfig) -> tuple[Pairs, Pairs]:
    """Training and validation pairs of a folder of sharp photographs, made unless cached.

    The cache is keyed by everything that the crops depend on.
    """
    photos = find_photos(data)
    held_out = photos[:: max(2, min(VALIDATION_SHARE, len(photos) // 2))]
    kept = [photo for photo in photos if photo not in held_out]
    key = _key(photos, config)
    training = _rendered(kept, cache / f"{key}-train", config, count=config.crops, seed=config.seed)
    validation = _rendered(held_out, cache / f"{key}-validation", config, count=VALIDATION_PAIRS, seed=config.seed + 1)
    return training, validation


def _rendered(photos: list[Path], folder: Path, config: TrainConfig, *, count: int, seed: int) -> Pairs:
    if folder.is_dir():
        return Pairs(folder)
    unfinished = folder.with_name(folder.name + ".part")
    unfinished.mkdir(parents=True, exist_ok=True)
    shape = (count, config.crop_px, config.crop_px, 3)
    blurred = np.lib.format.open_memmap(unfinished / "blurred.npy", "w+", np.uint8, shape)
    sharp = np.lib.format.open_memmap(unfinished / "sharp.npy", "w+", np.uint8, shape)
    starts = range(0, count, CROPS_PER_TASK)
    order = np.random.default_rng(seed).permutation(-(-len(starts) // len(photos)) * len(photos)) % len(photos)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tasks = []
        for index, start in enumerate(starts):
            rows = slice(start, start + CROPS_PER_TASK)
            tasks.append(pool.submit(_render, photos[order[index]], blurred[rows], sharp[rows], (seed, index), config))
        for task in tqdm(tasks, desc="crops", unit="photo"):
            task.result()
    blurred.flush()
    sharp.flush()
    unfinished.rename(folder)
    return Pairs(folder)


def _render(path: Path, blurred: Image, sharp: Image, seed: tuple[int, int], config: TrainConfig) -> None:
    """Fill `blurred` and `sharp`, uint8[N, S, S, 3] each, from one photograph at one random scale."""
    rng = np.random.default_rng(seed)
    photo = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photo is None:
        raise DataError(f"cannot be read as a picture; remove or replace it: {path}")
    patch_px = config.crop_px + 2 * config.blur.margin_px
    smallest = patch_px / min(photo.shape[:2])
    if smallest > 1:
        raise DataError(f"smaller than the {patch_px} pixels that a crop and its motion need; remove it: {path}")
    scale = rng.uniform(max(config.scale[0], smallest), max(config.scale[1], smallest))
    height, width = (max(patch_px, round(side * scale)) for side in photo.shape[:2])
    photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    for row in range(len(sharp)):
        blurred[row], sharp[row] = blurred_pair(_patch(photo, patch_px, config.blur, rng), config=config.blur, rng=rng)


def _patch(photo: Image, patch_px: int, blur: BlurConfig, rng: np.random.Generator) -> Image:
    for _ in range(4):
        top = rng.integers(photo.shape[0] - patch_px + 1)
        left = rng.integers(photo.shape[1] - patch_px + 1)
        patch = photo[top : top + patch_px, left : left + patch_px]
        if patch[blur.margin_px : -blur.margin_px, blur.margin_px : -blur.margin_px].std() >= FLAT_SIGMA:
            break
    return patch


def _key(photos: list[Path], config: TrainConfig) -> str:
    recipe = {name: getattr(config, name) for name in ("seed", "crop_px", "crops", "scale")} | asdict(config.blur)
    files = [(path.name, path.stat().st_size) for path in photos]
    return hashlib.sha256(json.dumps([recipe, files]).encode()).hexdigest()[:16]


def _planes(images: NDArray[np.uint8], rows: NDArray[np.int64], turns: NDArray[np.int64]) -> Tensor:
    turned = [_turned(images[row], turn) for row, turn in zip(rows, turns, strict=True)]
    return torch.from_numpy(np.stack(turned)).permute(0, 3, 1, 2).float().div_(255)


def _turned(image: NDArray[np.uint8], turn: int) -> NDArray[np.uint8]:
    return np.rot90(image[:, ::-1] if turn >= 4 else image, turn % 4)
