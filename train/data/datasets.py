"""Datasets of image pairs: read, scaled or cropped, blurred and augmented as the recipe says.

A pair depends on the seed, the epoch and its row alone: not on the worker process that reads it, nor on the pairs
before it. Therefore a resumed run gives the same bits as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from runtime.image_files import read_image
from train.config import DataConfig
from train.data.blur import Image, make_blurred_pair
from train.data.crops import draw_pair, interleave_samples, prepare_crops, resize
from train.data.image_cache import ImageCache, prepare_images
from train.data.index import Sample

_ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}

Pixels = TypeVar("Pixels", bound=NDArray[np.integer[Any]])
Key = tuple[int, int]
"""Epoch and row of a pair."""
Pair = tuple[Image, Image]
"""Blurred and sharp image, uint8[H, W, 3] BGR each."""


@dataclass(frozen=True)
class Augmentation:
    """Random changes that both images of a pair undergo."""

    flip: bool
    """Mirror left to right."""
    quarter_turns: int
    """Number of counterclockwise rotations by 90 degrees, 0 to 3."""
    angle_deg: float
    """Rotation about the centre; pixels outside the image are mirrored at its border."""

    @classmethod
    def draw(cls, config: DataConfig, rng: np.random.Generator) -> Augmentation:
        """Draw the changes that the settings allow."""
        return cls(
            flip=config.flips and rng.random() < 0.5,
            quarter_turns=int(rng.integers(4)) if config.quarter_turns else 0,
            angle_deg=rng.uniform(-config.rotation_deg, config.rotation_deg),
        )

    def __call__(self, image: Pixels) -> Pixels:
        """Change an image [H, W, ...] and return one of the same shape; quarter turns need a square."""
        changed: Any = image
        if self.flip:
            changed = cv2.flip(changed, 1)
        if self.quarter_turns:
            changed = cv2.rotate(changed, _ROTATIONS[self.quarter_turns])
        if self.angle_deg:
            height, width = changed.shape[:2]
            matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.angle_deg, 1.0)
            changed = cv2.warpAffine(changed, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        result: Pixels = changed
        return result


class ImageDataset(Dataset[Pair]):
    """Whole images, decoded when they are needed, at their own size or resized."""

    def __init__(self, samples: list[Sample], config: DataConfig, *, seed: int, augment: bool) -> None:
        """`augment` False: no augmentation, and the same synthetic blur at every epoch, as validation needs it."""
        self.samples, self.config, self.seed, self.augment = samples, config, seed, augment

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Pair:
        epoch, row = key
        rng = np.random.default_rng((self.seed, epoch if self.augment else 0, row))
        pair = self._load_pair(self.samples[row], rng, self.config.blur.length_share(epoch) if self.augment else 1.0)
        return _augment(pair, Augmentation.draw(self.config, rng)) if self.augment else pair

    def _load_pair(self, sample: Sample, rng: np.random.Generator, length_share: float) -> Pair:
        sharp = read_image(sample.sharp)
        is_whole = self.config.view == "whole"
        if sample.blurred:
            size = (sharp.shape[1], sharp.shape[0]) if is_whole else self.config.size_px
            return resize(read_image(sample.blurred), size), resize(sharp, size)
        margin_px = 2 * self.config.blur.margin_px
        if not is_whole:
            sharp = resize(sharp, (self.config.size_px[0] + margin_px, self.config.size_px[1] + margin_px))
        return make_blurred_pair(sharp, config=self.config.blur, rng=rng, length_share=length_share)


class CropDataset(Dataset[Pair]):
    """Square crops, made once (`train.data.crops`) and read from disk through memory maps.

    Decoding and blurring take longer than a training step of a small network.
    """

    def __init__(self, folder: Path, config: DataConfig, *, seed: int, augment: bool) -> None:
        """`augment` False: no augmentation, as validation needs it."""
        self.config, self.seed, self.augment = config, seed, augment
        self.blurred: NDArray[np.uint8] = np.load(folder / "blurred.npy", mmap_mode="r")
        self.sharp: NDArray[np.uint8] = np.load(folder / "sharp.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.sharp)

    def __getitem__(self, key: Key) -> Pair:
        row = key[1]
        pair = np.asarray(self.blurred[row]), np.asarray(self.sharp[row])
        return _augment(pair, self.draw_augmentation(key)) if self.augment else pair

    def draw_augmentation(self, key: Key) -> Augmentation:
        """Return the augmentation of a crop in an epoch."""
        epoch, row = key
        return Augmentation.draw(self.config, np.random.default_rng((self.seed, epoch, row)))


class FreshCrops(Dataset[Pair]):
    """Square crops that are drawn anew in every epoch, from decoded images on disk."""

    def __init__(self, images: ImageCache, group_sizes: Sequence[int], config: DataConfig, *, seed: int) -> None:
        """`group_sizes`: number of images of each folder of data, in the order of `images`."""
        self.images, self.config, self.seed = images, config, seed
        ends = np.cumsum(group_sizes).tolist()
        self._groups = [range(end - size, end) for end, size in zip(ends, group_sizes, strict=True)]
        self._order: tuple[int, list[int]] = (-1, [])
        """An epoch, and the image that each of its crops is drawn from."""

    def __len__(self) -> int:
        return self.config.crops

    def __getitem__(self, key: Key) -> Pair:
        epoch, row = key
        if self._order[0] != epoch:
            seed = (self.seed, epoch)
            order = interleave_samples(self._groups, self.config.shares, count=len(self), seed=seed)
            self._order = (epoch, order)
        rng = np.random.default_rng((self.seed, epoch, row))
        length_share = self.config.blur.length_share(epoch)
        pair = draw_pair(self.images[self._order[1][row]], self.config, rng, length_share=length_share)
        return _augment(pair, Augmentation.draw(self.config, rng))


class DeviceCrops:
    """The crops of a `CropDataset` in the memory of a GPU, augmented there: a CPU is too slow for a small network."""

    def __init__(self, crops: CropDataset, device: torch.device) -> None:
        """`crops`: their augmentation has flips and quarter turns only (`fits`)."""
        self.crops = crops
        self.blurred, self.sharp = (
            torch.from_numpy(np.array(part)).to(device) for part in (crops.blurred, crops.sharp)
        )
        side_px = crops.sharp.shape[1]
        positions = np.arange(side_px**2, dtype=np.int32).reshape(side_px, side_px)
        self.augmentations = [Augmentation(flip, turns, 0.0) for flip in (False, True) for turns in range(4)]
        sources = np.stack([augmentation(positions).ravel() for augmentation in self.augmentations])
        self.source_positions = torch.from_numpy(sources).to(device, torch.int64)[..., np.newaxis].expand(-1, -1, 3)
        """Position that each pixel is copied from, int64[8, S * S, 3]: one row for each augmentation."""

    @staticmethod
    def fits(crops: CropDataset, device: torch.device) -> bool:
        """Whether the device is a GPU, the crops take at most half of its free memory, and no angle is drawn."""
        if device.type != "cuda" or crops.config.rotation_deg:
            return False
        return 2 * (crops.blurred.nbytes + crops.sharp.nbytes) <= torch.cuda.mem_get_info(device)[0]

    def iterate_batches(self, keys: Iterable[list[Key]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the blurred and the sharp crops of each list of keys, uint8[N, S, S, 3] BGR each."""
        for batch in keys:
            drawn = [(key[1], self.augmentations.index(self.crops.draw_augmentation(key))) for key in batch]
            rows, indices = torch.tensor(drawn).to(self.sharp.device, non_blocking=True).unbind(1)
            blurred, sharp = (
                part[rows].flatten(1, 2).gather(1, self.source_positions[indices]).view(-1, *part.shape[1:])
                for part in (self.blurred, self.sharp)
            )
            yield blurred, sharp


PairDataset = ImageDataset | CropDataset | FreshCrops


def open_dataset(
    groups: list[list[Sample]], config: DataConfig, *, seed: int, augment: bool, cache: Path, key: str
) -> PairDataset:
    """Return the dataset that the settings describe; missing crops and decoded images are made in `cache`.

    `groups`: the samples of each folder of data. `key`: digest of the samples, for the names of the crops.
    `augment`: False for validation.
    """
    if config.validation_frames and not augment:
        return _open_frames(list(chain(*groups)), config, seed=seed)
    if config.view != "crop":
        return ImageDataset(list(chain(*groups)), config, seed=seed, augment=augment)
    if config.fresh_crops and augment:
        images = ImageCache(prepare_images(list(chain(*groups)), cache=cache, key=key))
        return FreshCrops(images, [len(group) for group in groups], config, seed=seed)
    folder = prepare_crops(groups, config, seed=seed, is_validation=not augment, cache=cache, key=key)
    return CropDataset(folder, config, seed=seed, augment=augment)


def _open_frames(samples: list[Sample], config: DataConfig, *, seed: int) -> ImageDataset:
    """Return `config.validation_frames` whole images, evenly spread over the samples."""
    count = min(config.validation_frames, len(samples))
    rows = np.linspace(0, len(samples) - 1, count).round().astype(int)
    whole = replace(config, view="whole", quarter_turns=False, shares=(), fresh_crops=False)
    return ImageDataset([samples[row] for row in rows], whole, seed=seed, augment=False)


def _augment(pair: Pair, augmentation: Augmentation) -> Pair:
    return augmentation(pair[0]), augmentation(pair[1])
