"""Small runs and pairs to export."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from calib_data import CALIBRATION
from runtime.engines import BUNDLED
from tests.conftest import make_image
from tests.export.test_fuse import REDUCED
from train.checkpoint import publish
from train.config import apply_overrides
from train.models import Generator, create_generator
from train.recipes import RECIPES

BUNDLED_RUN = BUNDLED.with_name("edge-s")
"""Checkpoint of the bundled engines."""


def write_run(folder: Path, *, name: str = "edge", seed: int = 0, scale: float = 1.0) -> Generator:
    torch.manual_seed(seed)
    generator = create_generator(name, **REDUCED[name])
    with torch.no_grad():
        for weight in list(generator.parameters())[-2:]:
            weight.mul_(scale)
    folder.mkdir(parents=True, exist_ok=True)
    config = apply_overrides(RECIPES["edge-s"], [f"generator={name}", f"options={REDUCED[name]}"])
    publish(generator.eval(), config.to_json(), folder)
    return generator


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for kind in ("blur", "sharp"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
    for index in range(3):
        sharp = make_image(60 + index, 45, seed=index)
        cv2.imwrite(str(tmp_path / "pairs" / "sharp" / f"{index}.png"), sharp)
        cv2.imwrite(str(tmp_path / "pairs" / "blur" / f"{index}.png"), cv2.blur(sharp, (5, 1)))
    return tmp_path / "pairs"


@pytest.fixture(scope="session")
def few_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibration frames for tests of what an export does with them: fewer and smaller than those of `calib_data`."""
    folder = tmp_path_factory.mktemp("few_frames")
    for path in sorted(CALIBRATION.iterdir())[::2]:
        image = cv2.imread(str(path))
        top, left = (image.shape[0] - 96) // 2, (image.shape[1] - 96) // 2
        cv2.imwrite(str(folder / f"{path.stem}.png"), image[top : top + 96, left : left + 96])
    return folder
