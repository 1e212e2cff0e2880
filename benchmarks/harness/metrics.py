"""Image quality metrics in the form in which result files can hold them."""

from __future__ import annotations

from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB, psnr_db


def capped_psnr_db(image: Pixels, reference: Pixels) -> float:
    """Return the PSNR in dB of two uint8[..., 3] images; at most `IDENTICAL_DB`, which stands for equal images."""
    return min(psnr_db(image, reference), IDENTICAL_DB)
