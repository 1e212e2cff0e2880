"""The report of an evaluation: `report.md`, its figures, and `scores.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from train.config import DataConfig
from train.data.datasets import ImageDataset
from train.evaluate.figures import draw_curves, draw_triplet
from train.evaluate.scoring import Restorer, score_dataset, score_pair, select_examples, write_scores
from train.metrics import Score
from train.perceptual import PerceptualMeter

REPORT = "report.md"
SCORES = {
    "PSNR (dB)": ("psnr_db", 2),
    "SSIM": ("ssim", 4),
    "LPIPS (less is better)": ("lpips", 4),
    "NIQE (less is better)": ("niqe", 2),
    "Grid of 4 pixels (codes, less is better)": ("grid_codes", 2),
}
"""Name in `Score` and number of decimal places, by title."""


@dataclass(frozen=True)
class Evaluation:
    """A model, its test images, and what the report has to say about them."""

    model: Restorer
    model_name: str
    dataset: ImageDataset
    root: Path
    """Folder of the data."""
    has_test_folder: bool
    """Whether the images are those of the folder `test`, which is not trained on."""
    is_validated_on_test: bool
    """Whether training chose the published epoch by the same images."""
    log: list[dict[str, Any]]
    """Entries of `log.jsonl`; empty for an engine."""
    perceptual: PerceptualMeter | None = None
    """Measures LPIPS, NIQE and the strength of a grid; None to leave them out."""


def write_report(evaluation: Evaluation, out: Path) -> str:
    """Score the test images, write everything to the folder `out`, and return the table of the scores.

    Raises the errors of the model, and OSError.
    """
    dataset = evaluation.dataset
    scores = score_dataset(evaluation.model, dataset, root=evaluation.root, perceptual=evaluation.perceptual)
    out.mkdir(parents=True, exist_ok=True)
    write_scores(scores, out / "scores.csv")
    parts = [f"# {evaluation.model_name} on {evaluation.root.name}"]
    parts += describe_images(dataset, has_test_folder=evaluation.has_test_folder)
    if evaluation.has_test_folder and evaluation.is_validated_on_test:
        parts.append("The epoch that is measured here was chosen on `test`, as the recipe says.")
    parts += ["## Test images", format_score_table(scores)]
    if evaluation.log:
        parts += ["## Training", format_training_table(evaluation.log)]
        parts += [f"![{caption}]({name})" for name, caption in draw_curves(evaluation.log, out).items()]
    parts.append("## Blurred, restored, sharp\n\nFrom the smallest gain to the largest.")
    parts += [_write_example(evaluation, row, scores[row], out) for row in select_examples(scores)]
    # Names of files need not be UTF-8.
    (out / REPORT).write_text("\n\n".join(parts) + "\n", encoding="utf-8", errors="surrogateescape")
    return format_score_table(scores)


def describe_images(dataset: ImageDataset, *, has_test_folder: bool) -> list[str]:
    """Return what a report says about its images, as paragraphs."""
    parts = [f"{len(dataset)} images at {_describe(dataset.config)}."]
    if any(sample.blurred is None for sample in dataset.samples):
        parts.append("The blur is synthetic: these images have no blurred partners.")
    if not has_test_folder:
        parts.append("There is no folder `test`: a model that was trained on this folder has seen these images.")
    return parts


def format_score_table(scores: list[Score]) -> str:
    """Return the means over the images as Markdown, like Table 2 of the two-stage paper."""
    lines = ["| mean of the test images | blurred | restored | change |\n|---|---|---|---|\n"]
    for title, (name, places) in SCORES.items():
        pairs = [(getattr(score, f"blurred_{name}"), getattr(score, f"restored_{name}")) for score in scores]
        measured = [pair for pair in pairs if None not in pair]
        if measured:
            before, after = np.mean(measured, axis=0).tolist()
            lines.append(f"| {title} | {before:.{places}f} | {after:.{places}f} | {after - before:+.{places}f} |\n")
    return "".join(lines)


def format_training_table(log: list[dict[str, Any]]) -> str:
    """Return the log entry of the published epoch as Markdown, like Table 1 of the two-stage paper."""
    published = [entry for entry in log if entry.get("is_published")]
    best = published[-1] if published else min(log, key=lambda entry: entry["validation/content_loss"])
    rows = {
        "Validation generator loss": ("validation/content_loss", ".6f"),
        "Validation SSIM": ("validation/ssim", ".4f"),
        "Validation PSNR (dB)": ("validation/psnr_db", ".2f"),
        "Validation LPIPS": ("validation/lpips", ".4f"),
        "Validation grid (codes)": ("validation/grid_codes", ".2f"),
        "Training generator loss": ("train/generator_loss", ".6f"),
        "Training discriminator loss": ("train/discriminator_loss", ".6f"),
        "Training SSIM": ("train/ssim", ".4f"),
        "Training PSNR (dB)": ("train/psnr_db", ".2f"),
    }
    lines = [f"| {title} | {best[name]:{spec}} |\n" for title, (name, spec) in rows.items() if name in best]
    return f"| at the published epoch, {best['epoch']} of {log[-1]['epoch']} | |\n|---|---|\n" + "".join(lines)


def _describe(config: DataConfig) -> str:
    return "their own size" if config.view == "whole" else f"{config.size_px[0]}x{config.size_px[1]}"


def _write_example(evaluation: Evaluation, row: int, score: Score, out: Path) -> str:
    """Write the triplet of an image and return its part of the report."""
    blurred, sharp = evaluation.dataset[0, row]
    _, restored = score_pair(evaluation.model, (blurred, sharp), score.image)
    name = f"triplet_{row:04d}.png"
    draw_triplet(blurred, restored, sharp, score, out / name)
    return f"![{score.image}, {score.gain_db:+.2f} dB]({name})\n\n{score.image}: {score.gain_db:+.2f} dB"
