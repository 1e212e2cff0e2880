"""Index of the images of a folder: GOPRO_Large, folders of pairs, or sharp photographs alone.

All problems of the images are found before the first training step, and reported together.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from calib_data import CALIBRATION
from runtime.errors import InputError
from runtime.image_files import is_image, read_image
from runtime.metrics import SSIM_MIN_PX
from train.config import DataConfig
from train.errors import DataError

MAX_LISTED_PROBLEMS = 20
"""Number of problems that an error lists; it counts the others."""


@dataclass(frozen=True)
class Sample:
    """A sharp image and, for data with pairs, its blurred partner."""

    sharp: Path
    blurred: Path | None
    """None: the blur is synthesized."""
    sequence: str
    """Folder of the sample, relative to the data. Frames of one recording resemble each other."""


@dataclass(frozen=True)
class Samples:
    """All samples below a folder."""

    root: Path
    train: list[Sample]
    test: list[Sample]
    """Samples in the folder `test` at the top; empty if there is no such folder."""


def find_samples(root: Path, *, blurred_folder: str = "blur") -> Samples:
    """Find the pairs below `root`, or its sharp images if it has no pairs.

    Pairs are images of the same names in two sibling folders, `sharp` and `blurred_folder`, at any depth: both
    GOPRO_Large's `train/GOPR0372_07_00/{blur,sharp}` and plain `{blur,sharp}`. Raises DataError if nothing is found,
    or if images have no partner.
    """
    require_folder(root)
    folders = list(_walk(root))
    parents = sorted(folder.parent for folder in folders if folder.name == "sharp" and folder != root)
    if parents:
        problems: list[str] = []
        samples = [sample for folder in parents for sample in _find_pairs(folder, root, blurred_folder, problems)]
        _raise_problems(problems, str(root))
    else:
        images = _list_images(path for folder in folders for path in folder.iterdir())
        samples = [Sample(path, None, _relative(path.parent, root)) for path in images]
    if not samples:
        raise DataError("found 0 images", root, hint="give a folder of images")
    parts: dict[bool, list[Sample]] = {True: [], False: []}
    for sample in samples:
        parts[sample.sequence.split("/")[0] == "test"].append(sample)
    return Samples(root, train=parts[False], test=parts[True])


def require_folder(root: Path) -> None:
    """Raise DataError if there is no such folder."""
    if not root.is_dir():
        raise DataError("no such folder", root, hint="give a folder of images")


def describe_blurred(samples: Samples, *, blurred_folder: str = "blur") -> str:
    """Return a note if images without a partner are known to be blurred: they are taken as sharp photographs.

    These are the frames of `calib_data/calibration`, and images in a folder named `blurred_folder`. Otherwise the note
    is empty.
    """
    alone = [sample.sharp for sample in (*samples.train, *samples.test) if sample.blurred is None]
    blurred = [path for path in alone if path.parent.name == blurred_folder or CALIBRATION in path.resolve().parents]
    if not blurred:
        return ""
    return (
        f"note: {len(blurred)} blurred images are taken as sharp photographs: {samples.root}; "
        "give pairs in blur/ and sharp/, or sharp photographs"
    )


def split_samples(samples: Samples, config: DataConfig) -> tuple[list[Sample], list[Sample]]:
    """Return the samples to train on and those to validate with; raises DataError if either list is empty.

    Without a `test` folder to validate with, a share of the training samples is held out: whole sequences, evenly
    spaced, if there are several. Of a single sequence of pairs the end is held out, because neighbouring frames show
    almost the same.
    """
    train = samples.train
    if config.validation == "test" and samples.test:
        validation = samples.test
    else:
        sequences = sorted({sample.sequence for sample in train})
        groups = sequences if len(sequences) > 1 else train
        count = max(1, round(config.validation_share * len(groups)))
        is_recording = len(sequences) == 1 and train[0].blurred is not None
        spaced = np.linspace(0, len(groups) - 1, count).astype(int)
        rows = range(len(groups) - count, len(groups)) if is_recording else spaced
        held_out = {groups[row] for row in rows}
        validation = [sample for sample in train if held_out & {sample, sample.sequence}]
        train = [sample for sample in train if not held_out & {sample, sample.sequence}]
    if not train or not validation:
        raise DataError(
            f"{len(train)} images to train on and {len(validation)} to validate with",
            samples.root,
            hint="give at least one image for each",
        )
    return train, validation


def check_images(samples: list[Sample], config: DataConfig, *, where: str, same_size: bool = True) -> None:
    """Decode every image once; raises DataError with a list of all problems.

    `where`: the folders of the samples, for the error. `same_size`: whole images must be of one size, as in a batch.
    """
    sizes: set[tuple[int, ...]] = set()
    problems = []
    with thread_pool() as pool:
        results = pool.map(lambda sample: _check_sample(sample, config), samples)
        bar = tqdm(results, total=len(samples), desc="checking", unit="image", leave=False, disable=None)
        for sample_problems, size in bar:
            problems += sample_problems
            sizes |= {size} if size else set()
    if same_size and config.view == "whole" and len(sizes) > 1 and not problems:
        problems.append(f"{len(sizes)} different sizes; resize them, --set data.view=resize, or crop, data.view=crop")
    _raise_problems(problems, where)


@contextmanager
def thread_pool() -> Iterator[ThreadPoolExecutor]:
    """Provide one thread for each core, for OpenCV calls, which release Python's lock.

    After an exception no further task is started.
    """
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def compute_fingerprint(groups: Iterable[tuple[Path, Iterable[Sample]]]) -> str:
    """Return the SHA-256 of the names and sizes of all files, by which a resumed run recognizes its data.

    `groups`: the folders of the data, and the samples of each.
    """
    facts = [
        (index, path.relative_to(root).as_posix(), path.stat().st_size)
        for index, (root, samples) in enumerate(groups)
        for sample in samples
        for path in (sample.blurred, sample.sharp)
        if path
    ]
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()


def _walk(root: Path) -> Iterator[Path]:
    """Yield a folder and all folders below it, those of links too, each once."""
    visited: set[Path] = set()
    for folder, names, _ in os.walk(root, followlinks=True):
        place = Path(folder).resolve()
        if place in visited:  # a link to a folder around it
            names.clear()
        else:
            visited.add(place)
            yield Path(folder)


def _find_pairs(folder: Path, root: Path, blurred_folder: str, problems: list[str]) -> Iterator[Sample]:
    """Yield the pairs of a folder; images that are no pair are added to `problems`."""
    blurred = folder / blurred_folder
    if not blurred.is_dir():
        hint = "add it, or name another folder with --set data.blurred_folder=NAME (training) or --blurred-folder NAME"
        raise DataError(f"a folder has sharp/ but no {blurred_folder}/", folder, hint=hint)
    images = _list_images([*blurred.iterdir(), *(folder / "sharp").iterdir()])
    blurred_by_stem = {path.stem: path for path in images if path.parent == blurred}
    sharp_by_stem = {path.stem: path for path in images if path.parent != blurred}
    stems = blurred_by_stem.keys() ^ sharp_by_stem.keys()
    alone = sorted(blurred_by_stem[stem] if stem in blurred_by_stem else sharp_by_stem[stem] for stem in stems)
    problems += [f"image without a partner: {path.relative_to(root)}" for path in alone]
    repeated = {*images} - {*blurred_by_stem.values(), *sharp_by_stem.values()}
    problems += [f"its name differs by the suffix alone: {path.relative_to(root)}" for path in sorted(repeated)]
    for stem, sharp in sharp_by_stem.items():
        if stem in blurred_by_stem:
            yield Sample(sharp, blurred_by_stem[stem], _relative(folder, root))


def _raise_problems(problems: list[str], where: str) -> None:
    if not problems:
        return
    more = len(problems) - MAX_LISTED_PROBLEMS
    lines = [f"  {problem}" for problem in problems[:MAX_LISTED_PROBLEMS]]
    lines += [f"  and {more} more"] if more > 0 else []
    hint = "\n".join(("repair or remove the images listed below", *lines))
    raise DataError(f"{len(problems)} problems with the images", where, hint=hint)


def _check_sample(sample: Sample, config: DataConfig) -> tuple[list[str], tuple[int, ...] | None]:
    """Return the problems of a sample, and (height, width) of its sharp image if both images can be read."""
    problems, shapes = [], []
    for path in filter(None, (sample.blurred, sample.sharp)):
        try:
            shapes.append(read_image(path).shape[:2])
        except InputError as error:
            problems.append(str(error))
    if problems:
        return problems, None
    if len(set(shapes)) > 1:
        (height, width), (sharp_height, sharp_width) = shapes
        problems.append(
            f"blurred image is {width}x{height}, sharp one {sharp_width}x{sharp_height}: {sample.blurred}; "
            "scale them to the same size"
        )
    margin_px = 0 if sample.blurred else 2 * config.blur.margin_px
    min_px = (config.size_px[0] if config.view == "crop" else SSIM_MIN_PX) + margin_px
    if min(shapes[-1]) < min_px:
        problems.append(f"image is smaller than {min_px} pixels: {sample.sharp}; remove it")
    return problems, shapes[-1]


def _list_images(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if is_image(path))


def _relative(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()
