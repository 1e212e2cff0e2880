"""Square crops of a data set, made once and kept on disk as two NumPy arrays, `blurred.npy` and `sharp.npy`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from runtime.files import output_error
from runtime.image_files import read_image
from train.config import DataConfig
from train.data.blur import Image, make_blurred_pair
from train.data.index import Sample, thread_pool

T = TypeVar("T")
CROPS_PER_IMAGE = 8
"""Number of crops that are taken each time an image is decoded."""
MAX_VALIDATION_CROPS = 192
MIN_DEVIATION_CODES = 6.0
"""Smallest standard deviation of a crop, in 8-bit codes: a flatter one teaches little and is drawn again."""
_MAX_DRAWS = 4


def prepare_crops(
    groups: list[list[Sample]], config: DataConfig, *, seed: int, is_validation: bool, cache: Path, key: str
) -> Path:
    """Return the folder of the crops in `cache`, which are made unless they exist; raises OutputError.

    `groups`: the samples of each folder of data. `key`: digest of the samples.
    """
    count = min(config.crops, MAX_VALIDATION_CROPS) if is_validation else config.crops
    names = [[(sample.sequence, sample.sharp.name) for sample in group] for group in groups]  # without those held out
    settings = [key, names, seed, count, config.size_px, config.scale, config.shares, asdict(config.blur)]
    folder = cache / hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
    if not folder.is_dir():
        try:
            _make_crops(groups, folder, config, count=count, seed=seed)
        except OSError as error:
            shutil.rmtree(_unfinished(folder), ignore_errors=True)
            raise output_error(folder, error) from error
    return folder


def _unfinished(folder: Path) -> Path:
    return folder.with_name(folder.name + ".part")


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Resize an image uint8[H, W, 3] to (width, height): by area if it becomes smaller, else bicubic."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    is_reduction = size[0] <= image.shape[1] and size[1] <= image.shape[0]
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if is_reduction else cv2.INTER_CUBIC)
    return np.asarray(resized, np.uint8)


def interleave_samples(
    groups: Sequence[Sequence[T]], shares: tuple[float, ...], *, count: int, seed: int | tuple[int, ...]
) -> list[T]:
    """Return `count` samples, or their numbers, taken from the groups alternately and in proportion to their shares.

    Without shares each group gives the same number. Every group is in a random order, and repeated when it ends.
    """
    rng = np.random.default_rng(seed)
    weights = np.array(shares or [1.0] * len(groups))
    weights /= weights.sum()
    queues: list[Iterator[T]] = [_shuffle_endlessly(group, rng) for group in groups]
    counts = np.zeros(len(groups))
    samples = []
    for index in range(count):
        group = int(np.argmax(weights * (index + 1) - counts))
        counts[group] += 1
        samples.append(next(queues[group]))
    return samples


def draw_pair(
    image: Image, config: DataConfig, rng: np.random.Generator, *, length_share: float = 1.0
) -> tuple[Image, Image]:
    """Return a random crop of a sample, blurred and sharp uint8[S, S, 3].

    `image`: a photograph uint8[H, W, 3], or uint8[H, W, 6] with a blurred image and its sharp partner.
    `length_share`: as for `make_blurred_pair`.
    """
    side_px = config.size_px[0]
    if image.shape[2] == 6:
        crop = _draw_crop(image, side_px, 0, rng)
        return np.ascontiguousarray(crop[..., :3]), np.ascontiguousarray(crop[..., 3:])
    margin_px = config.blur.margin_px
    crop_px = side_px + 2 * margin_px
    scale = _draw_scale(image, crop_px, config, rng)
    source_px = min(round(crop_px / scale), *image.shape[:2])
    crop = _draw_crop(image, source_px, round(margin_px * source_px / crop_px), rng)
    reduced = resize(np.ascontiguousarray(crop), (crop_px, crop_px))
    return make_blurred_pair(reduced, config=config.blur, rng=rng, length_share=length_share)


def _draw_scale(image: Image, crop_px: int, config: DataConfig, rng: np.random.Generator) -> float:
    """Return a random factor by which a photograph is reduced, so that it is not smaller than a crop."""
    min_scale = crop_px / min(image.shape[:2])
    return float(rng.uniform(max(config.scale[0], min_scale), max(config.scale[1], min_scale)))


def _shuffle_endlessly(samples: Sequence[T], rng: np.random.Generator) -> Iterator[T]:
    """Yield the samples in random order, for ever; each is yielded once before any is repeated."""
    while True:
        for row in rng.permutation(len(samples)):
            yield samples[row]


def _make_crops(groups: list[list[Sample]], folder: Path, config: DataConfig, *, count: int, seed: int) -> None:
    unfinished = _unfinished(folder)
    unfinished.mkdir(parents=True, exist_ok=True)
    width, height = config.size_px
    shape = (count, height, width, 3)
    size = 2 * count * height * width * 3
    print(f"making {count} crops of {width}x{height} pixels, which take {size / 1e6:.0f} MB", flush=True)
    if size > shutil.disk_usage(unfinished).free:  # reserving it would fill the disk
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    blurred, sharp = (_create_array(unfinished / f"{name}.npy", shape) for name in ("blurred", "sharp"))
    starts = range(0, count, CROPS_PER_IMAGE)
    samples = interleave_samples(groups, config.shares, count=len(starts), seed=seed)
    with thread_pool() as pool:
        tasks = []
        for index, start in enumerate(starts):
            rows = slice(start, start + CROPS_PER_IMAGE)
            rng = np.random.default_rng((seed, index))
            tasks.append(pool.submit(_fill_crops, samples[index], blurred[rows], sharp[rows], config, rng))
        for task in tqdm(tasks, desc="crops", unit="image", leave=False, disable=None):
            task.result()
    blurred.flush()
    sharp.flush()
    unfinished.rename(folder)


def _create_array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create an array on disk and reserve its space: writing to a full disk through a memory map kills the process."""
    array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _fill_crops(sample: Sample, blurred: Image, sharp: Image, config: DataConfig, rng: np.random.Generator) -> None:
    """Fill `blurred` and `sharp`, uint8[N, S, S, 3] each, with N crops of one sample."""
    side_px = config.size_px[0]
    if sample.blurred:
        both = np.concatenate((read_image(sample.blurred), read_image(sample.sharp)), axis=2)  # [H, W, 6]
        for row in range(len(sharp)):
            crop = _draw_crop(both, side_px, 0, rng)
            blurred[row], sharp[row] = crop[..., :3], crop[..., 3:]
        return
    crop_px = side_px + 2 * config.blur.margin_px
    image = read_image(sample.sharp)
    scale = _draw_scale(image, crop_px, config, rng)
    height, width = (max(crop_px, round(side * scale)) for side in image.shape[:2])
    image = resize(image, (width, height))
    for row in range(len(sharp)):
        crop = _draw_crop(image, crop_px, config.blur.margin_px, rng)
        blurred[row], sharp[row] = make_blurred_pair(crop, config=config.blur, rng=rng)


def _draw_crop(image: Image, crop_px: int, margin_px: int, rng: np.random.Generator) -> Image:
    """Return a random square of `crop_px` whose inside, without the margin, is not flat, if one is drawn soon."""
    for _ in range(_MAX_DRAWS):
        top = rng.integers(image.shape[0] - crop_px + 1)
        left = rng.integers(image.shape[1] - crop_px + 1)
        crop = image[top : top + crop_px, left : left + crop_px]
        inside = crop[margin_px : crop_px - margin_px, margin_px : crop_px - margin_px]
        if inside.std() >= MIN_DEVIATION_CODES:
            break
    return crop
