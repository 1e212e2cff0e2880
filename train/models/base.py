"""What every generator promises to the loop and to the export."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import nn


class Generator(nn.Module):
    """float32[N, 3, H, W] blurred -> float32[N, 3, H, W] sharp, same size and range.

    Subclasses state how they see pixels; `export.pixels` builds the uint8 BGR interface from it.
    """

    channel_order: ClassVar[Literal["BGR", "RGB"]]
    """Order of the three colour planes."""
    pixel_range: ClassVar[tuple[float, float]]
    """Values of black and of full white."""
    multiple_of: ClassVar[int]
    """H and W must be multiples of this; callers pad."""
