"""Trackers, which show the numbers and sample images of a run while it trains; TensorBoard is one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

TENSORBOARD = "tensorboard"
SAMPLES = "blurred, restored, sharp"
"""Name of the sample images."""


class Tracker(Protocol):
    """Shows the numbers of a run while it goes on."""

    def add_numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        """Record numbers by name."""

    def add_image(self, image: NDArray[np.uint8], *, step: int) -> None:
        """Record sample images, uint8[H, W, 3] RGB."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Events in the folder `tensorboard` of a run."""

    def __init__(self, writer: Any) -> None:
        """`writer`: a `SummaryWriter`."""
        self._writer = writer

    @classmethod
    def open(cls, run: Path, *, from_step: int) -> TensorBoard | None:
        """Return the tracker, or None if TensorBoard is not installed; events after `from_step` are not shown."""
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional
        except ImportError:
            tqdm.write("tensorboard is not installed; log.jsonl has the same numbers")
            return None
        return cls(SummaryWriter(str(run / TENSORBOARD), purge_step=from_step + 1))

    def add_numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def add_image(self, image: NDArray[np.uint8], *, step: int) -> None:
        self._writer.add_image(SAMPLES, image, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
