"""Whether a contender gives the picture that it is to be timed for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB, psnr_db

LEAST_AGREEMENT_DB = 50.0
"""Of 8-bit pictures on the worst frame, where a contender has no budget: no more than some codes rounded otherwise."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What a contender's pictures are against PyTorch's and against the truth."""

    agreement_db: float
    """PSNR against PyTorch eager, of the worst frame."""
    undone_db: float
    """The same of the blurred input: what doing nothing would give on that frame."""
    loss_db: float
    """PSNR against the truth that is lost, mean over the frames; negative where it gains."""
    budget_db: float | None
    seconds: float
    """The least that a frame took."""
    complaint: str
    """Why it is not to be timed; empty if it is."""

    @property
    def passed(self) -> bool:
        return not self.complaint


def checked(
    restore: Callable[[Pixels], Pixels],
    blurred: Sequence[Pixels],
    expected: Sequence[Pixels],
    truth: Sequence[Pixels],
    *,
    budget_db: float | None,
) -> Check:
    """Run a contender on frames, uint8[1, H, W, 3] BGR each.

    Without a budget each frame has to agree with what PyTorch gives. With one, frames may lose that much against
    the truth on average, and together they have to be nearer to PyTorch's than the blurred input is; not each, as
    a frame that was sharp is changed by eight bits as much as by the network.
    """
    rows, seconds, restored = [], [], []
    for frame, picture, sharp in zip(blurred, expected, truth, strict=True):
        began = perf_counter()
        given = restore(frame)
        seconds.append(perf_counter() - began)
        if given.dtype != np.uint8 or given.shape != picture.shape:
            raise ValueError(f"gives {given.dtype}{list(given.shape)}, expected uint8{list(picture.shape)}")
        lost = _capped_db(picture, sharp) - _capped_db(given, sharp)
        rows.append((_capped_db(given, picture), _capped_db(frame, picture), lost))
        restored.append(given)
    agreement_db, undone_db, _ = min(rows)
    loss_db = float(np.mean([row[2] for row in rows]))
    near_db, idle_db = (_capped_db(np.concatenate(each), np.concatenate(expected)) for each in (restored, blurred))
    idle = near_db <= idle_db < IDENTICAL_DB
    return Check(
        agreement_db=round(agreement_db, 2),
        undone_db=round(undone_db, 2),
        loss_db=round(loss_db, 4),
        budget_db=budget_db,
        seconds=min(seconds),
        complaint=_complaint(agreement_db, loss_db, budget_db, idle=idle),
    )


def _complaint(agreement_db: float, loss_db: float, budget_db: float | None, *, idle: bool) -> str:
    if budget_db is None:
        if agreement_db >= LEAST_AGREEMENT_DB:
            return ""
        return f"another picture: {agreement_db:.1f} dB against PyTorch, {LEAST_AGREEMENT_DB:g} expected"
    if loss_db > budget_db:
        return f"loses {loss_db:.2f} dB against the truth, may lose {budget_db:g}"
    return "no nearer to PyTorch's pictures than the blurred input" if idle else ""


def _capped_db(picture: Pixels, truth: Pixels) -> float:
    return min(psnr_db(picture, truth), IDENTICAL_DB)
