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

    `pairs`: at least one. The whole image is restored, and its centre shown, of images of several sizes as much as all
    of them have. The generator is left in train mode.
    """
    device = next(generator.parameters()).device
    height, width = (min(MAX_SIDE_PX, *(sharp.shape[axis] for _, sharp in pairs)) for axis in (0, 1))
    generator.eval()
    rows = []
    for blurred, sharp in pairs:
        (restored,) = restore_frames(generator, torch.from_numpy(blurred.copy())[None].to(device)).cpu().numpy()
        rows.append(
            np.concatenate([_crop_centre(image, height, width) for image in (blurred, restored, sharp)], axis=1)
        )
    generator.train()
    return np.ascontiguousarray(np.concatenate(rows)[..., ::-1])


def _crop_centre(image: Image, height: int, width: int) -> Image:
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]
