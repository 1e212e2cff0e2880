"""Pairs of pictures, seen and turned as the recipe says.

A pair depends on the seed, the epoch and its place in the data alone: not on the worker that
made it, nor on what came before. That is what makes a resumed run equal to the bit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from train.config import DataConfig
from train.data.blur import Image, blurred_pair
from train.data.index import Sample, read, threads

CROPS_PER_TASK = 8
VALIDATION_CROPS = 192
FLAT_SIGMA = 6.0
"""Crops whose values deviate by less than this many codes teach little and are redrawn."""

_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)

Key = tuple[int, int]
"""Epoch and row of a sample."""
Pair = tuple[Image, Image]
"""Blurred and sharp, uint8[H, W, 3] BGR each."""


@dataclass(frozen=True)
class Augmentation:
    """One draw of the random changes that both pictures of a pair undergo."""

    flip: bool
    turns: int
    """Quarter turns."""
    angle_deg: float

    @classmethod
    def drawn(cls, config: DataConfig, rng: np.random.Generator) -> Augmentation:
        """By the recipe's switches; all off leaves pictures as they are."""
        return cls(
            flip=config.flips and rng.random() < 0.5,
            turns=int(rng.integers(4)) if config.quarter_turns else 0,
            angle_deg=rng.uniform(-config.rotation_deg, config.rotation_deg),
        )

    def __call__(self, picture: Image) -> Image:
        """uint8[H, W, 3] -> the same shape (quarter turns: of a square)."""
        if self.flip:
            picture = cv2.flip(picture, 1)
        if self.turns:
            picture = cv2.rotate(picture, _TURNS[self.turns])
        if self.angle_deg:
            height, width = picture.shape[:2]
            turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.angle_deg, 1.0)
            picture = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        return picture


class Pictures(Dataset[Pair]):
    """Whole pictures, read when they are needed; `augment` off gives the same pair at every epoch."""

    def __init__(self, samples: list[Sample], config: DataConfig, *, seed: int, augment: bool) -> None:
        self.samples, self.config, self.seed, self.augment = samples, config, seed, augment

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Pair:
        epoch, row = key
        rng = np.random.default_rng((self.seed, epoch if self.augment else 0, row))
        pair = self._seen(self.samples[row], rng)
        if not self.augment:
            return pair
        change = Augmentation.drawn(self.config, rng)
        return change(pair[0]), change(pair[1])

    def _seen(self, sample: Sample, rng: np.random.Generator) -> Pair:
        sharp = read(sample.sharp)
        whole = self.config.view == "whole"
        if sample.blurred:
            size = (sharp.shape[1], sharp.shape[0]) if whole else self.config.size_px
            return _resized(read(sample.blurred), size), _resized(sharp, size)
        margin_px = 2 * self.config.blur.margin_px
        if not whole:
            sharp = _resized(sharp, (self.config.size_px[0] + margin_px, self.config.size_px[1] + margin_px))
        return blurred_pair(sharp, config=self.config.blur, rng=rng)


class Crops(Dataset[Pair]):
    """Square crops, made once and read from disk through memory maps.

    Decoding and blurring cost more than a training step of a small network.
    """

    def __init__(self, folder: Path, config: DataConfig, *, seed: int, augment: bool) -> None:
        self.config, self.seed, self.augment = config, seed, augment
        self.blurred: NDArray[np.uint8] = np.load(folder / "blurred.npy", mmap_mode="r")
        self.sharp: NDArray[np.uint8] = np.load(folder / "sharp.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.sharp)

    def __getitem__(self, key: Key) -> Pair:
        row = key[1]
        pair = np.asarray(self.blurred[row]), np.asarray(self.sharp[row])
        if not self.augment:
            return pair
        change = self.change(key)
        return change(pair[0]), change(pair[1])

    def change(self, key: Key) -> Augmentation:
        """What both pictures undergo in that epoch."""
        epoch, row = key
        return Augmentation.drawn(self.config, np.random.default_rng((self.seed, epoch, row)))


class CropsOnDevice:
    """The same crops in the memory of a GPU, and turned there: a small network would wait for the CPU to do it."""

    def __init__(self, crops: Crops, device: torch.device) -> None:
        """`crops`: to be flipped and turned by quarters at most."""
        self.crops = crops
        self.blurred, self.sharp = (
            torch.from_numpy(np.array(part)).to(device) for part in (crops.blurred, crops.sharp)
        )
        side_px = crops.sharp.shape[1]
        places = np.arange(side_px**2, dtype=np.int32).reshape(side_px, side_px)
        self.changes = [Augmentation(flip, turns, 0.0) for flip in (False, True) for turns in range(4)]
        taken_from = np.stack([change(places).ravel() for change in self.changes])
        self.taken_from = torch.from_numpy(taken_from).to(device, torch.int64)[..., np.newaxis].expand(-1, -1, 3)
        """For each change, int64[S * S, 3]: where each pixel comes from."""

    @staticmethod
    def have_room(crops: Crops, device: torch.device) -> bool:
        """Whether they take at most half of what a GPU has free, and are not turned by any angle."""
        if device.type != "cuda" or crops.config.rotation_deg:
            return False
        return 2 * (crops.blurred.nbytes + crops.sharp.nbytes) <= torch.cuda.mem_get_info(device)[0]

    def batches(self, keys: Iterable[list[Key]]) -> Iterator[tuple[Tensor, Tensor]]:
        """As a loader of the crops gives them, uint8[N, S, S, 3] each."""
        for batch in keys:
            drawn = [(key[1], self.changes.index(self.crops.change(key))) for key in batch]
            rows, changes = torch.tensor(drawn).to(self.sharp.device, non_blocking=True).unbind(1)
            blurred, sharp = (
                part[rows].flatten(1, 2).gather(1, self.taken_from[changes]).view(-1, *part.shape[1:])
                for part in (self.blurred, self.sharp)
            )
            yield blurred, sharp


def dataset(
    groups: list[list[Sample]], config: DataConfig, *, seed: int, augment: bool, cache: Path, key: str
) -> Pictures | Crops:
    """The samples as the recipe sees them; crops are made in `cache` unless they are there.

    `groups`: the samples of each folder that was given. `key`: of the samples, for the cache.
    `augment` off is for validation.
    """
    if config.view != "crop":
        return Pictures(list(chain(*groups)), config, seed=seed, augment=augment)
    count = config.crops if augment else min(config.crops, VALIDATION_CROPS)
    recipe = [key, seed, count, config.size_px, config.scale, config.shares, asdict(config.blur)]
    folder = cache / hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:16]
    if not folder.is_dir():
        _make_crops(groups, folder, config, count=count, seed=seed)
    return Crops(folder, config, seed=seed, augment=augment)


def _resized(picture: Image, size: tuple[int, int]) -> Image:
    if (picture.shape[1], picture.shape[0]) == size:
        return picture
    smaller = size[0] <= picture.shape[1] and size[1] <= picture.shape[0]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def taken_in_turns(groups: list[list[Sample]], shares: tuple[float, ...], *, count: int, seed: int) -> list[Sample]:
    """`count` samples, of each group by its share (none given: alike), each group's in a random order of its own."""
    rng = np.random.default_rng(seed)
    weights = np.array(shares or [1.0] * len(groups))
    weights /= weights.sum()
    queues: list[Iterator[Sample]] = [_shuffled(group, rng) for group in groups]
    taken = np.zeros(len(groups))
    samples = []
    for done in range(count):
        group = int(np.argmax(weights * (done + 1) - taken))
        taken[group] += 1
        samples.append(next(queues[group]))
    return samples


def _shuffled(samples: list[Sample], rng: np.random.Generator) -> Iterator[Sample]:
    """Without end, all of them before any comes again."""
    while True:
        for row in rng.permutation(len(samples)):
            yield samples[row]


def _make_crops(groups: list[list[Sample]], folder: Path, config: DataConfig, *, count: int, seed: int) -> None:
    unfinished = folder.with_name(folder.name + ".part")
    unfinished.mkdir(parents=True, exist_ok=True)
    shape = (count, config.size_px[1], config.size_px[0], 3)
    blurred, sharp = (_array(unfinished / f"{name}.npy", shape) for name in ("blurred", "sharp"))
    starts = range(0, count, CROPS_PER_TASK)
    samples = taken_in_turns(groups, config.shares, count=len(starts), seed=seed)
    with threads() as pool:
        tasks = []
        for index, start in enumerate(starts):
            rows = slice(start, start + CROPS_PER_TASK)
            rng = np.random.default_rng((seed, index))
            tasks.append(pool.submit(_crop, samples[index], blurred[rows], sharp[rows], config, rng))
        for task in tqdm(tasks, desc="crops", unit="picture", leave=False):
            task.result()
    blurred.flush()
    sharp.flush()
    unfinished.rename(folder)


def _array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new array on disk, all of its space taken now: a full disk would kill the process later."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _crop(sample: Sample, blurred: Image, sharp: Image, config: DataConfig, rng: np.random.Generator) -> None:
    """Fill `blurred` and `sharp`, uint8[N, S, S, 3] each, from one sample."""
    side_px = config.size_px[0]
    if sample.blurred:
        both = np.concatenate((read(sample.blurred), read(sample.sharp)), axis=2)
        for row in range(len(sharp)):
            patch = _patch(both, side_px, 0, rng)
            blurred[row], sharp[row] = patch[..., :3], patch[..., 3:]
        return
    patch_px = side_px + 2 * config.blur.margin_px
    picture = read(sample.sharp)
    smallest = patch_px / min(picture.shape[:2])
    scale = rng.uniform(max(config.scale[0], smallest), max(config.scale[1], smallest))
    height, width = (max(patch_px, round(side * scale)) for side in picture.shape[:2])
    picture = _resized(picture, (width, height))
    for row in range(len(sharp)):
        patch = _patch(picture, patch_px, config.blur.margin_px, rng)
        blurred[row], sharp[row] = blurred_pair(patch, config=config.blur, rng=rng)


def _patch(picture: Image, patch_px: int, margin_px: int, rng: np.random.Generator) -> Image:
    for _ in range(4):
        top = rng.integers(picture.shape[0] - patch_px + 1)
        left = rng.integers(picture.shape[1] - patch_px + 1)
        patch = picture[top : top + patch_px, left : left + patch_px]
        if patch[margin_px : patch_px - margin_px, margin_px : patch_px - margin_px].std() >= FLAT_SIGMA:
            break
    return patch
