"""Small images to train on."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import make_image


def scene(width: int, height: int, *, seed: int) -> np.ndarray:
    """Return an image with edges, uint8[height, width, 3]."""
    photo, rng = make_image(width, height, seed=seed), np.random.default_rng(seed)
    for x, y, size, *colour in rng.integers(0, min(width, height), (40, 6)).tolist():
        cv2.rectangle(photo, (x, y), (x + 8 + size // 8, y + 6 + size // 10), colour, -1)
    return photo


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four sharp photographs."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        cv2.imwrite(str(folder / f"{seed}.png"), scene(160, 120, seed=seed))
    return folder


def write_gopro(root: Path, *, sequences: dict[str, int], size: tuple[int, int] = (96, 80)) -> Path:
    """Write a tree like GOPRO_Large's; `sequences`: number of pairs by folder, `train/SEQUENCE` or `test/SEQUENCE`."""
    for number, (sequence, count) in enumerate(sequences.items()):
        for kind in ("blur", "blur_gamma", "sharp"):
            (root / sequence / kind).mkdir(parents=True)
        for index in range(count):
            sharp = scene(*size, seed=100 * number + index)
            for kind, width in (("blur", 7), ("blur_gamma", 5), ("sharp", 1)):
                name = str(root / sequence / kind / f"{index:06d}.png")
                cv2.imwrite(name, cv2.blur(sharp, (width, 1)))
    return root


@pytest.fixture(scope="session")
def gopro(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training sequences and one test sequence, 12 and 3 pairs of 96x80 pixels."""
    root = tmp_path_factory.mktemp("gopro")
    return write_gopro(root, sequences={"train/GOPR01": 4, "train/GOPR02": 4, "train/GOPR03": 4, "test/GOPR04": 3})


def lpips_file(path: Path) -> dict[str, torch.Tensor]:
    """Write random weights with the names and shapes of `lpips.LPIPS(net="alex")`, and return them."""
    rng = torch.Generator().manual_seed(0)
    shapes = {"slice1.0": (64, 3, 11, 11), "slice2.3": (192, 64, 5, 5), "slice3.6": (384, 192, 3, 3)}
    shapes |= {"slice4.8": (256, 384, 3, 3), "slice5.10": (256, 256, 3, 3)}
    state = {}
    for index, (name, shape) in enumerate(shapes.items()):
        state[f"net.{name}.weight"] = torch.randn(shape, generator=rng) / np.sqrt(np.prod(shape[1:]))
        state[f"net.{name}.bias"] = torch.randn(shape[0], generator=rng) / 10
        state[f"lin{index}.model.1.weight"] = torch.rand(1, shape[0], 1, 1, generator=rng)
    save_file(state, path)
    return state
