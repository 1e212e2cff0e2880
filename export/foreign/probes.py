"""Images that show how a network is run: the pairs, and if it restores none of them, sharp images degraded otherwise.

A network for clean motion blur makes worse what was blurred and compressed, and a network against noise leaves blur as
it is; but each restores what it was made for, and that only if it is run as it was trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from export.verify import Pair
from runtime.frame import Pixels

_BLUR_PX = 7
_NOISE_CODES = 20.0
_MIN_GAIN_DB = 0.5
"""Gain that shows a network at work on images that are not the user's; less may come of any small change."""


@dataclass(frozen=True)
class Probe:
    """Images to restore, with their references."""

    name: str
    pairs: list[Pair]
    min_gain_db: float
    """Gain over the degraded images above which a way restores them."""


def list_probes(pairs: list[Pair]) -> Iterator[Probe]:
    """Yield the pairs, then their sharp images with clean motion blur, then with noise."""
    yield Probe("the pairs", pairs, 0.0)
    blurred = [Pair(pair.name, _blur(pair.sharp, index), pair.sharp) for index, pair in enumerate(pairs)]
    yield Probe(f"sharp images with {_BLUR_PX} pixels of motion blur", blurred, _MIN_GAIN_DB)
    noisy = [Pair(pair.name, _add_noise(pair.sharp, index), pair.sharp) for index, pair in enumerate(pairs)]
    yield Probe(f"sharp images with noise of {_NOISE_CODES:g} codes", noisy, _MIN_GAIN_DB)


def _blur(sharp: Pixels, index: int) -> Pixels:
    """Return an image blurred along a line, whose direction depends on the index."""
    kernel = np.zeros((_BLUR_PX, _BLUR_PX), np.float32)
    middle = _BLUR_PX // 2
    along = np.linspace(-middle, middle, 8 * _BLUR_PX)
    angle = index * np.pi / 4
    rows, columns = (np.rint(middle + along * part).astype(int) for part in (np.sin(angle), np.cos(angle)))
    np.add.at(kernel, (rows, columns), 1)
    blurred = cv2.filter2D(sharp, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.uint8)


def _add_noise(sharp: Pixels, index: int) -> Pixels:
    noise = np.random.default_rng(index).normal(0, _NOISE_CODES, sharp.shape)
    noisy: Pixels = np.rint(sharp + noise).clip(0, 255).astype(np.uint8)
    return noisy
