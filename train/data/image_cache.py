"""Decoded images on disk, read through a memory map: decoding takes much longer than cutting a crop."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.files import output_error
from runtime.image_files import read_image
from train.data.blur import Image
from train.data.index import Sample, thread_pool

_PIXELS, _PLACES = "pixels.bin", "places.npy"
_DECODED_AT_ONCE = 16
"""Number of samples in memory while the file is written."""


class ImageCache:
    """Images of samples: uint8[H, W, 3] BGR, or uint8[H, W, 6] with a blurred image and its sharp partner."""

    def __init__(self, folder: Path) -> None:
        """`folder`: what `prepare_images` returned."""
        self._folder = folder
        self._places: NDArray[np.int64] = np.load(folder / _PLACES)
        """First byte, height, width and number of channels of each sample, int64[N, 4]."""
        self._pixels: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> Image:
        """Return a view of the file."""
        if self._pixels is None:
            self._pixels = np.memmap(self._folder / _PIXELS, np.uint8, "r")
        start, height, width, channels = self._places[row].tolist()
        return self._pixels[start : start + height * width * channels].reshape(height, width, channels)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}  # a memory map would be sent to a worker process as a copy


def prepare_images(samples: Sequence[Sample], *, cache: Path, key: str) -> Path:
    """Return the folder of the decoded samples in `cache`, which is made unless it exists; raises OutputError.

    `key`: digest of the names and sizes of all files.
    """
    names = [(sample.sequence, sample.sharp.name, sample.blurred is None) for sample in samples]
    folder = cache / f"images-{hashlib.sha256(json.dumps([key, names]).encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        unfinished = folder.with_name(folder.name + ".part")
        try:
            _write_images(samples, unfinished)
            unfinished.rename(folder)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise output_error(folder, error) from error
    return folder


def _write_images(samples: Sequence[Sample], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    places, start = [], 0
    with (folder / _PIXELS).open("wb") as file:
        for image in tqdm(
            _decode(samples), total=len(samples), desc="decoding", unit="image", leave=False, disable=None
        ):
            places.append((start, *image.shape))
            start += image.size
            file.write(np.ascontiguousarray(image).data)
    np.save(folder / _PLACES, np.array(places, np.int64))


def _decode(samples: Sequence[Sample]) -> Iterator[Image]:
    """Yield the images of all samples in order, with no more than a few in memory."""
    rest = iter(samples)
    with thread_pool() as pool:
        while chunk := list(islice(rest, _DECODED_AT_ONCE)):
            yield from pool.map(_read_sample, chunk)


def _read_sample(sample: Sample) -> Image:
    sharp = read_image(sample.sharp)
    return np.concatenate((read_image(sample.blurred), sharp), axis=2) if sample.blurred else sharp
