"""Log of a run: one entry for each validation, on the terminal, in `log.jsonl`, and for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.files import output_error, write_whole
from runtime.json_text import parse_json
from train.training.trackers import TensorBoard, Tracker

LOG = "log.jsonl"
_ALWAYS_LOGGED = ("epoch", "step", "validation/content_loss")
"""Numbers in every entry of `log.jsonl`."""


class RunLog:
    """Writes `log.jsonl`, a line on the terminal, and the numbers and images of trackers such as TensorBoard."""

    def __init__(self, run: Path, *, from_step: int, trackers: Iterable[Tracker] = ()) -> None:
        """Open the log. Entries after `from_step` are removed, because those steps are repeated.

        `trackers`: those besides TensorBoard.
        """
        self._path = run / LOG
        entries = [entry for entry in read_log(run) if entry["step"] <= from_step]
        write_whole(self._path, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        events = TensorBoard.open(run, from_step=from_step)
        self._trackers: list[Tracker] = [*([events] if events else []), *trackers]

    def write_entry(self, entry: dict[str, Any]) -> None:
        """Record a validation: numbers by name, with `step` and `epoch` among them; raises OutputError."""
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise output_error(self._path, error) from error
        numbers = {name: value for name, value in entry.items() if name not in {"step", "epoch", "is_published"}}
        self.write_numbers(numbers, step=entry["step"])
        tqdm.write(_format_entry(entry))

    def write_numbers(self, numbers: dict[str, float], *, step: int) -> None:
        """Record numbers by name for the trackers alone."""
        for tracker in self._trackers:
            tracker.add_numbers(numbers, step=step)

    def write_images(self, image: NDArray[np.uint8], *, step: int) -> None:
        """Record sample images, uint8[H, W, 3] RGB, for the trackers."""
        for tracker in self._trackers:
            tracker.add_image(image, step=step)

    def __enter__(self) -> RunLog:  # noqa: PYI034 - Self is new in Python 3.11
        return self

    def __exit__(self, *error: object) -> None:
        for tracker in self._trackers:
            tracker.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """Return the entries of a run up to the first damaged line, such as one that a killed process left incomplete."""
    entries = []
    path = run / LOG
    for text in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            entry = parse_json(text)
        except ValueError:
            break
        if not (isinstance(entry, dict) and all(isinstance(entry.get(name), (int, float)) for name in _ALWAYS_LOGGED)):
            break
        entries.append(entry)
    return entries


def _format_entry(entry: dict[str, Any]) -> str:
    parts = [f"epoch {entry['epoch']:g}, step {entry['step']}:"]
    for word, name in (("loss", "train/generator_loss"), ("discriminator", "train/discriminator_loss")):
        if name in entry:
            parts.append(f"{word} {entry[name]:.5f}")
    parts.append(f"validation {entry['validation/content_loss']:.5f}, {entry['validation/psnr_db']:.3f} dB")
    parts.append(f"(blurred {entry['validation/blurred_psnr_db']:.3f}), SSIM {entry['validation/ssim']:.4f},")
    if "validation/lpips" in entry:
        parts.append(f"LPIPS {entry['validation/lpips']:.4f},")
    if "validation/grid_codes" in entry:
        parts.append(f"grid {entry['validation/grid_codes']:.2f},")
    parts.append(f"{entry['images_per_second']:.3g} images/s")
    if entry["skipped_steps"]:
        parts.append(f"({entry['skipped_steps']} steps skipped: gradient not finite)")
    return " ".join(parts)
