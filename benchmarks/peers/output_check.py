"""Check of the output of an implementation before it is timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from benchmarks.harness.metrics import capped_psnr_db
from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB

MIN_AGREEMENT_DB = 50.0
"""Smallest PSNR against PyTorch on the worst frame for an implementation without a budget: at that value no more than
some 8-bit codes are rounded differently."""


@dataclass(frozen=True, kw_only=True)
class OutputCheck:
    """Output of an implementation compared with that of PyTorch and with the ground truth."""

    agreement_db: float
    """PSNR against PyTorch eager on the worst frame."""
    undone_db: float
    """PSNR of the blurred input against PyTorch eager on that frame: the value of an implementation that does
    nothing."""
    loss_db: float
    """Mean PSNR against the ground truth that is lost compared with PyTorch; negative for a gain."""
    budget_db: float | None
    seconds: float
    """Shortest time of a frame."""
    rejection: str
    """Reason why the implementation must not be timed; empty if it may."""

    @property
    def is_accepted(self) -> bool:
        """Whether the implementation may be timed."""
        return not self.rejection


def check_output(
    restore: Callable[[Pixels], Pixels],
    blurred: Sequence[Pixels],
    expected: Sequence[Pixels],
    sharp: Sequence[Pixels],
    *,
    budget_db: float | None,
) -> OutputCheck:
    """Run an implementation on frames and compare its output; all frames are uint8[1, H, W, 3] BGR.

    `expected`: output of PyTorch; `sharp`: ground truth. Without a budget every frame has to agree with PyTorch. With a
    budget the frames may lose that much against the ground truth on average, and all frames together have to be nearer
    to the output of PyTorch than the blurred input is. That is not required of each frame: INT8 changes a frame that
    was sharp as much as the network does. Raises ValueError for an output of another shape or type.
    """
    rows, seconds, restored = [], [], []
    for frame, pytorch_output, ground_truth in zip(blurred, expected, sharp, strict=True):
        began = perf_counter()
        output = restore(frame)
        seconds.append(perf_counter() - began)
        if output.dtype != np.uint8 or output.shape != pytorch_output.shape:
            raise ValueError(
                f"output is {output.dtype}{list(output.shape)}, expected uint8{list(pytorch_output.shape)}"
            )
        loss_db = capped_psnr_db(pytorch_output, ground_truth) - capped_psnr_db(output, ground_truth)
        rows.append((capped_psnr_db(output, pytorch_output), capped_psnr_db(frame, pytorch_output), loss_db))
        restored.append(output)
    agreement_db, undone_db, _ = min(rows)
    mean_loss_db = float(np.mean([row[2] for row in rows]))
    return OutputCheck(
        agreement_db=round(agreement_db, 2),
        undone_db=round(undone_db, 2),
        loss_db=round(mean_loss_db, 4),
        budget_db=budget_db,
        seconds=min(seconds),
        rejection=_find_rejection(
            agreement_db, mean_loss_db, budget_db, is_idle=_is_idle(restored, blurred=blurred, expected=expected)
        ),
    )


def _is_idle(restored: Sequence[Pixels], *, blurred: Sequence[Pixels], expected: Sequence[Pixels]) -> bool:
    """Return whether all restored frames together are no nearer to the expected ones than the blurred input."""
    restored_db, blurred_db = (
        capped_psnr_db(np.concatenate(frames), np.concatenate(expected)) for frames in (restored, blurred)
    )
    return restored_db <= blurred_db < IDENTICAL_DB


def _find_rejection(agreement_db: float, loss_db: float, budget_db: float | None, *, is_idle: bool) -> str:
    if budget_db is None:
        if agreement_db >= MIN_AGREEMENT_DB:
            return ""
        return f"another image: {agreement_db:.1f} dB against PyTorch, expected {MIN_AGREEMENT_DB:g}"
    if loss_db > budget_db:
        return f"loses {loss_db:.2f} dB against the ground truth, the budget is {budget_db:g}"
    return "no nearer to the output of PyTorch than the blurred input" if is_idle else ""
