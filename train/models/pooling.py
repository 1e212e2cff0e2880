"""Mean over a window about each pixel, for windows of any side, in a constant number of operations a pixel."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_windows(x: Tensor, side: int) -> Tensor:
    """Return the mean of the square window about each pixel: float32[N, C, H, W] -> the same.

    Windows that would reach beyond the border are moved inside, and a window larger than the map is cut to the map
    (Chu et al. 2022). Sums of whole rows and columns are taken in float32 at least.
    """
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return _pool_axis(_pool_axis(exact, side, 2), side, 3).to(x.dtype)


def _pool_axis(x: Tensor, side: int, axis: int) -> Tensor:
    """Return the mean of `side` neighbours along an axis.

    The bounds are tensors, so that an exported graph computes them for every size.
    """
    positions = torch.arange(x.shape[axis], device=x.device)
    reach = positions[-1:].clamp(max=side - 1)  # number of neighbours less one: the map may be smaller than the window
    first = torch.minimum((positions - torch.div(reach, 2, rounding_mode="floor")).clamp(min=0), positions[-1:] - reach)
    sums = x.cumsum(axis)
    means: Tensor = (
        sums.index_select(axis, first + reach) - sums.index_select(axis, first) + x.index_select(axis, first)
    ) / (reach + 1)
    return means
