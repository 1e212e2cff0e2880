"""Scores of a model on test images."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from train.config import DataConfig, Recipe
from train.data.blur import Image
from train.data.datasets import ImageDataset, Pair
from train.data.index import Sample
from train.metrics import Score, measure_similarity
from train.perceptual import PerceptualMeter

Restorer = Callable[[Image], Image]
"""Function that restores uint8[1, H, W, 3] BGR."""
EXAMPLES = 5
"""Number of images that a report shows."""


def choose_test_config(size: str, recipe: Recipe | None) -> DataConfig:
    """Return how test images are read: blurred as in training, without augmentation, at the size of `--size`.

    `size`: `WxH`, `full` or `trained`. Raises ValueError for any other text, and for sizes that are too small.
    """
    trained = dataclasses.replace(
        recipe.data if recipe else DataConfig(), shares=(), flips=False, quarter_turns=False, fresh_crops=False
    )
    if size == "trained" and trained.view == "resize":
        return trained
    if size in {"trained", "full"}:
        return dataclasses.replace(trained, view="whole")
    try:
        width, height = (int(part) for part in size.split("x"))
    except ValueError as error:
        raise ValueError(f"--size must be WxH, such as 800x450, or full, got {size!r}") from error
    return dataclasses.replace(trained, view="resize", size_px=(width, height))


def score_pair(
    model: Restorer, pair: Pair, name: str, *, perceptual: PerceptualMeter | None = None
) -> tuple[Score, Image]:
    """Restore the blurred image of a pair and compare both with the sharp one; return the score and the restored image.

    Images are uint8[H, W, 3] BGR. `perceptual` measures three more scores.
    """
    blurred, sharp = pair
    restored = model(blurred[np.newaxis])[0]
    before, after = (measure_similarity(image, sharp) for image in (blurred, restored))
    score = Score(name, before.psnr_db, after.psnr_db, before.ssim, after.ssim)
    if perceptual:
        before_eye, after_eye = (perceptual.measure(image, sharp) for image in (blurred, restored))
        score = dataclasses.replace(
            score,
            blurred_lpips=before_eye.lpips,
            restored_lpips=after_eye.lpips,
            blurred_niqe=before_eye.niqe,
            restored_niqe=after_eye.niqe,
            blurred_grid_codes=before_eye.grid_codes,
            restored_grid_codes=after_eye.grid_codes,
        )
    return score, restored


def score_dataset(
    model: Restorer, dataset: ImageDataset, *, root: Path, perceptual: PerceptualMeter | None = None
) -> list[Score]:
    """Score every image of a dataset; images are named by their path below `root`."""
    rows = tqdm(range(len(dataset)), desc="restoring", unit="image", disable=None)
    return [
        score_pair(model, dataset[0, row], _name_sample(dataset.samples[row], root), perceptual=perceptual)[0]
        for row in rows
    ]


def select_examples(scores: list[Score]) -> list[int]:
    """Return the rows of five images, from the smallest gain to the largest, so that a report shows failures too."""
    order = np.argsort([score.gain_db for score in scores], kind="stable")
    positions = np.linspace(0, len(order) - 1, EXAMPLES).round().astype(int)
    return [int(order[position]) for position in sorted(set(positions))]


def list_measured(scores: Iterable[Score]) -> list[str]:
    """Return the names of the values that at least one of the scores has."""
    rows = [dataclasses.asdict(score) for score in scores]
    return [field.name for field in dataclasses.fields(Score) if any(row[field.name] is not None for row in rows)]


def write_scores(scores: list[Score], path: Path) -> None:
    """Write the scores as CSV; raises OSError."""
    names = list_measured(scores)
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        # The header of the first column is "picture", as in the files of earlier versions.
        writer.writerow(["picture" if name == "image" else name for name in names])
        writer.writerows([getattr(score, name) for name in names] for score in scores)


def _name_sample(sample: Sample, root: Path) -> str:
    return (sample.blurred or sample.sharp).relative_to(root).as_posix()
