"""Which pictures there are: GOPRO_Large, folders of pairs, or sharp photographs alone.

Whatever is wrong with them is found, all of it, before the first step.
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

import cv2
import numpy as np
from tqdm import tqdm

from train.config import DataConfig
from train.data.blur import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
LEAST_PX = 11
"""SSIM's window."""
SHOWN_PROBLEMS = 20


class DataError(ValueError):
    """Pictures that cannot be trained on; the message may have several lines, the first says it all."""


@dataclass(frozen=True)
class Sample:
    """A sharp picture and, where there is one, its blurred partner."""

    sharp: Path
    blurred: Path | None
    sequence: str
    """The folder that it came in: frames of one recording resemble each other."""


@dataclass(frozen=True)
class Samples:
    """All samples below a folder; `test` is empty where the data has no folder of that name."""

    root: Path
    train: list[Sample]
    test: list[Sample]


def find_samples(root: Path, *, blurred_folder: str = "blur") -> Samples:
    """Look for pairs below `root`, and for sharp pictures if there are none.

    Pairs are two folders beside each other, `sharp` and `blurred_folder`, with pictures of the
    same names, at any depth: GOPRO_Large's `train/GOPR0372_07_00/{blur,sharp}` as well as plain
    `{blur,sharp}`. What lies in `test` at the top is kept apart. Raises DataError for a picture
    without a partner, and if nothing is found.
    """
    if not root.is_dir():
        raise DataError(f"no such folder; give one that holds pictures: {root}")
    pairs = [folder.parent for folder in sorted(root.rglob("sharp")) if folder.is_dir()]
    if pairs:
        samples = [sample for folder in pairs for sample in _pairs(folder, root, blurred_folder)]
    else:
        samples = [Sample(path, None, _within(path.parent, root)) for path in _pictures(root.rglob("*"))]
    if not samples:
        raise DataError(f"found 0 pictures; give a folder that holds some: {root}")
    parts: dict[bool, list[Sample]] = {True: [], False: []}
    for sample in samples:
        parts[sample.sequence.split("/")[0] == "test"].append(sample)
    return Samples(root, train=parts[False], test=parts[True])


def split(samples: Samples, config: DataConfig) -> tuple[list[Sample], list[Sample]]:
    """What is trained on and what validates; raises DataError if either is empty.

    Of the training pictures whole sequences are held out where there are several, evenly spaced; of the pairs of a
    single one its end, as neighbours share most of what they show.
    """
    train = samples.train
    if config.validation == "test" and samples.test:
        validation = samples.test
    else:
        sequences = sorted({sample.sequence for sample in train})
        groups = sequences if len(sequences) > 1 else train
        count = max(1, round(config.validation_share * len(groups)))
        neighbours = len(sequences) == 1 and train[0].blurred is not None
        spaced = np.linspace(0, len(groups) - 1, count).astype(int)
        held_out = {groups[at] for at in (range(len(groups) - count, len(groups)) if neighbours else spaced)}
        validation = [sample for sample in train if held_out & {sample, sample.sequence}]
        train = [sample for sample in train if not held_out & {sample, sample.sequence}]
    if not train or not validation:
        raise DataError(
            f"{len(train)} pictures to train on and {len(validation)} to validate with; at least one each is needed: "
            f"{samples.root}"
        )
    return train, validation


def check(samples: list[Sample], config: DataConfig, *, where: str, same_size: bool = True) -> None:
    """Decode every picture once; raises DataError with all that cannot be used, found `where` it says.

    `same_size`: whole pictures must be of one size, as in a batch.
    """
    sizes: set[tuple[int, ...]] = set()
    problems = []
    with threads() as pool:
        found = pool.map(lambda sample: _inspect(sample, config), samples)
        for problem, size in tqdm(found, total=len(samples), desc="checking", unit="picture", leave=False):
            problems += problem
            sizes |= {size} if size else set()
    if same_size and config.view == "whole" and len(sizes) > 1 and not problems:
        problems.append(f"{len(sizes)} different sizes; resize them, --set data.view=resize, or crop, data.view=crop")
    _refuse(problems, where)


@contextmanager
def threads() -> Iterator[ThreadPoolExecutor]:
    """One for each core, for work that OpenCV does outside Python's lock; after an error none starts anew."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def fingerprint(groups: Iterable[tuple[Path, Iterable[Sample]]]) -> str:
    """SHA-256 of the names and sizes of all files, so that a run is resumed on the data it began with.

    `groups`: the folders that were given, and their samples.
    """
    facts = [
        (index, path.relative_to(root).as_posix(), path.stat().st_size)
        for index, (root, samples) in enumerate(groups)
        for sample in samples
        for path in (sample.blurred, sample.sharp)
        if path
    ]
    return hashlib.sha256(json.dumps(sorted(facts)).encode()).hexdigest()


def read(path: Path) -> Image:
    """Decode a picture to uint8[H, W, 3] BGR; raises DataError if it is damaged or cut short."""
    content = path.read_bytes()
    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    except cv2.error:  # a size beyond all bounds in its header
        picture = None
    if picture is None:
        raise DataError(f"cannot be read as a picture; remove or replace it: {path}")
    if _is_cut_short(content):
        raise DataError(f"is cut short; remove or replace it: {path}")
    return picture


def _pairs(folder: Path, root: Path, blurred_folder: str) -> Iterator[Sample]:
    blurred = folder / blurred_folder
    if not blurred.is_dir():
        raise DataError(
            f"sharp/ has no {blurred_folder}/ beside it; add it, or name another with "
            f"--set data.blurred_folder=NAME: {folder}"
        )
    theirs = {path.stem: path for path in _pictures(blurred.iterdir())}
    ours = {path.stem: path for path in _pictures((folder / "sharp").iterdir())}
    alone = sorted((theirs[stem] if stem in theirs else ours[stem]) for stem in theirs.keys() ^ ours.keys())
    _refuse([f"has no partner: {path.relative_to(root)}" for path in alone], str(root))
    for stem, sharp in ours.items():
        yield Sample(sharp, theirs[stem], _within(folder, root))


def _refuse(problems: list[str], where: str) -> None:
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        lines = [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]] + ([f"  and {more} more"] if more > 0 else [])
        summary = f"{len(problems)} problems with the pictures, listed below; mend or remove them: {where}"
        raise DataError("\n".join((summary, *lines)))


def _inspect(sample: Sample, config: DataConfig) -> tuple[list[str], tuple[int, ...] | None]:
    """What is wrong with a sample, and the size of its sharp picture."""
    problems, shapes = [], []
    for path in filter(None, (sample.blurred, sample.sharp)):
        try:
            shapes.append(read(path).shape[:2])
        except (DataError, OSError) as error:
            problems.append(str(error))
    if problems:
        return problems, None
    if len(set(shapes)) > 1:
        (height, width), (sharp_height, sharp_width) = shapes
        problems.append(
            f"blurred is {width}x{height} and sharp {sharp_width}x{sharp_height}; scale them alike: {sample.blurred}"
        )
    margin_px = 0 if sample.blurred else 2 * config.blur.margin_px
    least_px = config.size_px[0] if config.view == "crop" else LEAST_PX
    if min(shapes[-1]) < least_px + margin_px:
        problems.append(f"smaller than the {least_px + margin_px} pixels that are needed: {sample.sharp}")
    return problems, shapes[-1]


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES)


def _within(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()


def _is_cut_short(content: bytes) -> bool:
    """Whether the end of a JPEG or PNG is missing, which OpenCV 4 does not tell; more may follow the end."""
    if content.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in content[content.rfind(b"\xff\xda") :]
    if content.startswith(b"\x89PNG"):
        return b"IEND" not in content
    return False
