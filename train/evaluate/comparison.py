"""The report of several models on the same images: one table, and their results side by side."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from train.data.datasets import ImageDataset
from train.evaluate.figures import draw_row
from train.evaluate.report import REPORT, SCORES, describe_images
from train.evaluate.scoring import Restorer, list_measured, score_dataset, score_pair, select_examples
from train.metrics import Score
from train.perceptual import PerceptualMeter


@dataclass(frozen=True)
class Comparison:
    """Models by name, and the images that all of them restore."""

    models: Mapping[str, Restorer]
    dataset: ImageDataset
    root: Path
    """Folder of the data."""
    has_test_folder: bool
    """Whether the images are those of the folder `test`, which is not trained on."""
    validated_on_test: Sequence[str]
    """Names of the models whose published epoch was chosen by the same images."""
    perceptual: PerceptualMeter | None = None


def name_models(paths: Sequence[Path]) -> list[str]:
    """Return a name for each model: of its file, with as many folders before it as make all names different."""
    paths = [path.resolve() for path in paths]
    for count in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{path.name} ({number})" for number, path in enumerate(paths, start=1)]  # one of them twice


def write_comparison(comparison: Comparison, out: Path) -> str:
    """Score the test images, write everything to the folder `out`, and return the table of the scores.

    Raises the errors of the models, and OSError.
    """
    dataset, root = comparison.dataset, comparison.root
    scores = {
        name: score_dataset(model, dataset, root=root, perceptual=comparison.perceptual)
        for name, model in comparison.models.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    _write_scores(scores, out / "scores.csv")
    first = next(iter(scores))
    parts = [f"# {', '.join(scores)} on {root.name}"]
    parts += describe_images(dataset, has_test_folder=comparison.has_test_folder)
    if comparison.validated_on_test:
        names = ", ".join(comparison.validated_on_test)
        parts.append(f"The epoch that is measured here was chosen on `test`, as the recipe says: {names}.")
    parts += ["## Test images", format_comparison(scores)]
    parts.append(f"## Side by side\n\nFrom the smallest gain of {first} to its largest.")
    for row in select_examples(scores[first]):
        parts.append(_write_example(comparison, row, {name: each[row] for name, each in scores.items()}, out))
    # Names of files need not be UTF-8.
    (out / REPORT).write_text("\n\n".join(parts) + "\n", encoding="utf-8", errors="surrogateescape")
    return format_comparison(scores)


def format_comparison(scores: Mapping[str, Sequence[Score]]) -> str:
    """Return the means over the images as Markdown, a row for the blurred images and one for each model."""
    first = next(iter(scores.values()))
    kinds = {title: kind for title, kind in SCORES.items() if _mean(first, f"blurred_{kind[0]}") is not None}
    titles = ["mean of the test images", *kinds, "gain (dB)", "smallest gain (dB)"]
    rows = [["blurred", *(_format(first, f"blurred_{name}", places) for name, places in kinds.values()), "", ""]]
    for model, own in scores.items():
        gains_db = [score.gain_db for score in own]
        cells = [_format(own, f"restored_{name}", places) for name, places in kinds.values()]
        rows.append([model, *cells, f"{np.mean(gains_db):+.2f}", f"{min(gains_db):+.2f}"])
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _mean(scores: Sequence[Score], name: str) -> float | None:
    """Return the mean over the images that have a score, None if none has it."""
    values = [value for score in scores if (value := getattr(score, name)) is not None]
    return float(np.mean(values)) if values else None


def _format(scores: Sequence[Score], name: str, places: int) -> str:
    mean = _mean(scores, name)
    return "-" if mean is None else f"{mean:.{places}f}"


def _write_scores(scores: Mapping[str, Sequence[Score]], path: Path) -> None:
    """Write the scores as CSV, a row for each model and image."""
    names = list_measured(chain.from_iterable(scores.values()))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", *names])
        writer.writerows(
            [model, *(getattr(score, name) for name in names)] for model, own in scores.items() for score in own
        )


def _write_example(comparison: Comparison, row: int, scores: Mapping[str, Score], out: Path) -> str:
    """Write what all models make of an image, and return its part of the report."""
    pair = comparison.dataset[0, row]
    score = next(iter(scores.values()))
    images = {f"blurred {score.blurred_psnr_db:.2f} dB, SSIM {score.blurred_ssim:.3f}": pair[0]}
    for name, model in comparison.models.items():
        restored, own = score_pair(model, pair, score.image)[1], scores[name]
        images[f"{name} {own.restored_psnr_db:.2f} dB, SSIM {own.restored_ssim:.3f}"] = restored
    file = f"row_{row:04d}.png"
    draw_row(images | {"sharp": pair[1]}, out / file)
    gains = ", ".join(f"{name} {own.gain_db:+.2f} dB" for name, own in scores.items())
    return f"![{score.image}]({file})\n\n{score.image}: {gains}"
