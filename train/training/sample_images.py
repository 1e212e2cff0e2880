"""Sample images for TensorBoard: blurred, restored and sharp side by side, the same validation images each time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from train.data.blur import Image
from train.data.datasets import Pair
from train.models import Generator, restore_frames

MAX_SAMPLES = 4
MAX_SIDE_PX = 256
"""Largest width and height of a sample; of a larger image its centre is shown."""


def draw_samples(generator: Generator, pairs: Sequence[Pair]) -> NDArray[np.uint8]:
    """Return an image uint8[H, W, 3] RGB with a row for each pair: blurred, restored, sharp.

    `pairs`: images of one size, at least one. The whole image is restored, and its centre shown. The generator is left
    in train mode.
    """
    device = next(generator.parameters()).device
    generator.eval()
    rows = []
    for blurred, sharp in pairs:
        (restored,) = restore_frames(generator, torch.from_numpy(blurred.copy())[None].to(device)).cpu().numpy()
        rows.append(np.concatenate([_crop_centre(image) for image in (blurred, restored, sharp)], axis=1))
    generator.train()
    return np.ascontiguousarray(np.concatenate(rows)[..., ::-1])


def _crop_centre(image: Image) -> Image:
    height, width = image.shape[:2]
    top, left = max(0, (height - MAX_SIDE_PX) // 2), max(0, (width - MAX_SIDE_PX) // 2)
    return image[top : top + MAX_SIDE_PX, left : left + MAX_SIDE_PX]
