"""What a run tells while it runs: one line an epoch, on the terminal, in a file, and for TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from train.checkpoint import write_whole

LOG = "log.jsonl"
TENSORBOARD = "tensorboard"


class Log:
    """Writes `log.jsonl`, TensorBoard's events where it is installed, and a line on the terminal."""

    def __init__(self, run: Path, *, from_step: int) -> None:
        """Lines and events after `from_step` are of a stretch that is trained again, and are dropped."""
        self._path = run / LOG
        lines = [line for line in read_log(run) if line["step"] <= from_step]
        write_whole(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        self._events = _event_writer(run / TENSORBOARD, from_step)

    def epoch(self, line: dict[str, Any]) -> None:
        """Record one epoch: numbers by name, `step` and `epoch` among them."""
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if self._events:
            for name, value in line.items():
                if name not in {"step", "epoch"}:
                    self._events.add_scalar(name, value, line["step"])
            self._events.flush()
        tqdm.write(_sentence(line))

    def __enter__(self) -> Log:  # noqa: PYI034 - Self is new in Python 3.11
        return self

    def __exit__(self, *error: object) -> None:
        if self._events:
            self._events.close()


def read_log(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run; a last line that was cut off by a kill is left out."""
    lines = []
    path = run / LOG
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _sentence(line: dict[str, Any]) -> str:
    parts = [f"epoch {line['epoch']}, step {line['step']}:"]
    for word, name in (("loss", "train/generator_loss"), ("discriminator", "train/discriminator_loss")):
        if name in line:
            parts.append(f"{word} {line[name]:.5f}")
    parts.append(f"validation {line['validation/content_loss']:.5f}, {line['validation/psnr_db']:.3f} dB")
    parts.append(f"(blurred {line['validation/blurred_psnr_db']:.3f}), SSIM {line['validation/ssim']:.4f},")
    parts.append(f"{line['images_per_second']:.3g} images/s")
    if line["skipped_steps"]:
        parts.append(f"({line['skipped_steps']} skipped: gradient not finite)")
    return " ".join(parts)


def _event_writer(folder: Path, from_step: int) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional
    except ImportError:
        tqdm.write("tensorboard is not installed; log.jsonl has all that it would show")
        return None
    return SummaryWriter(str(folder), purge_step=from_step + 1)
