"""Figures of a report: training curves and image triplets. Only this file needs matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np

from train.data.blur import Image
from train.metrics import Score

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

_LABEL_PX = 28
"""Height of the label above an image."""


def draw_curves(log: list[dict[str, Any]], folder: Path) -> dict[str, str]:
    """Draw figures 2 to 4 of the two-stage paper as PNG files, and return their captions by file name.

    `log`: the entries of `log.jsonl`. Without a discriminator there is no curve of its loss. Raises OSError.
    """
    figures = {
        "curve_generator_loss.png": (
            "Generator loss; the validation loss has no adversarial part",
            {"training": "train/generator_loss", "validation": "validation/content_loss"},
        ),
        "curve_discriminator_loss.png": ("Discriminator loss", {"training": "train/discriminator_loss"}),
        "curve_ssim.png": (
            "SSIM",
            {"training": "train/ssim", "validation": "validation/ssim", "blurred": "validation/blurred_ssim"},
        ),
        "curve_psnr.png": (
            "PSNR (dB)",
            {"training": "train/psnr_db", "validation": "validation/psnr_db", "blurred": "validation/blurred_psnr_db"},
        ),
    }
    captions = {}
    for name, (title, lines) in figures.items():
        logged = {label: key for label, key in lines.items() if any(key in entry for entry in log)}
        if logged:
            _draw_curve(log, title, logged, folder / name)
            captions[name] = title
    return captions


def draw_triplet(blurred: Image, restored: Image, sharp: Image, score: Score, path: Path) -> None:
    """Write three images side by side with labels, uint8[H, W, 3] BGR each, as a PNG file; raises OSError."""
    images = {
        f"blurred {score.blurred_psnr_db:.2f} dB, SSIM {score.blurred_ssim:.3f}": blurred,
        f"restored {score.restored_psnr_db:.2f} dB, SSIM {score.restored_ssim:.3f}": restored,
        "sharp": sharp,
    }
    draw_row(images, path)


def draw_row(images: Mapping[str, Image], path: Path) -> None:
    """Write images of one size side by side with their labels, uint8[H, W, 3] BGR each, as a PNG file; raises OSError.

    A label that is wider than its image is cut off.
    """
    columns = []
    for label, image in images.items():
        strip = np.full((_LABEL_PX, image.shape[1], 3), 255, np.uint8)
        cv2.putText(strip, label, (6, _LABEL_PX - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        columns.append(np.concatenate((strip, image)))
    _, encoded = cv2.imencode(".png", np.concatenate(columns, axis=1))
    path.write_bytes(encoded.tobytes())


def _draw_curve(log: list[dict[str, Any]], title: str, lines: dict[str, str], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for label, key in lines.items():
        style: dict[str, Any] = {"linestyle": ":", "color": "gray"} if label == "blurred" else {"marker": "."}
        points = [(entry["epoch"], entry[key]) for entry in log if key in entry]
        axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel(title.partition(";")[0])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
