"""Kinds of plans that the GPU check builds of an engine, and the sizes that each is tried with."""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height in pixels."""
CLIP: Size = (640, 360)
"""Size of the demo clip."""
_FRAMES = 24


@dataclass(frozen=True, kw_only=True)
class PlanKind:
    """Settings of a plan, and what it is compared with the CPU on."""

    title: str
    sizes: tuple[Size, Size, Size]
    """Smallest, optimal and largest size of frames."""
    batches: tuple[tuple[Size, int], ...]
    """Size and number of frames of each batch; a single entry stands for so many batches of one frame."""
    batch: int = 1
    """Largest number of frames in a batch."""


PLANS = {
    "static": PlanKind(title="one size", sizes=(CLIP, CLIP, CLIP), batches=((CLIP, _FRAMES),)),
    "dynamic": PlanKind(
        title="any size",
        sizes=((64, 64), (1280, 720), (1920, 1088)),
        batches=((CLIP, 1), ((333, 217), 1), (CLIP, 1), ((1279, 719), 1), ((64, 64), 1), ((1920, 1080), 1)),
    ),
    "batch": PlanKind(
        title="two frames a call", sizes=(CLIP, CLIP, CLIP), batch=2, batches=((CLIP, 2), (CLIP, 1), (CLIP, 5))
    ),
}
"""Kinds by their names in file names."""
