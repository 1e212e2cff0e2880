"""Synthetic pairs are those that an evaluation makes, and existing files are kept."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import make_image
from train.config import DataConfig
from train.data.datasets import ImageDataset
from train.data.index import find_samples
from train.recipes import RECIPES
from train.synthetic import main


@pytest.fixture
def sharp(tmp_path: Path) -> Path:
    for name, size in (("a.png", (120, 100)), ("far/a.png", (130, 110))):
        (tmp_path / "sharp photos" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "sharp photos" / name), make_image(*size))
    return tmp_path / "sharp photos"


def test_pairs_are_those_that_an_evaluation_makes(sharp: Path, tmp_path: Path) -> None:
    assert main(["--source", str(sharp), "--out", str(tmp_path / "pairs")]) == 0
    config = DataConfig(view="whole", blur=RECIPES["edge-s"].data.blur)
    seen = ImageDataset(find_samples(sharp).train, config, seed=0, augment=False)
    for row, name in enumerate(("a.png", "far_a.png")):
        for kind, expected in zip(("blur", "sharp"), seen[0, row], strict=True):
            assert np.array_equal(cv2.imread(str(tmp_path / "pairs" / kind / name)), expected)
    assert len(find_samples(tmp_path / "pairs").train) == 2


def test_existing_pairs_are_not_mixed_with_new_ones(
    sharp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--out", str(tmp_path / "pairs"), "--source"]
    assert main([*arguments, str(sharp)]) == 0
    assert main([*arguments, str(sharp)]) == 2
    assert "this folder holds pairs already" in capsys.readouterr().err
    for source, words in ((tmp_path / "none", "no such folder"), (tmp_path / "pairs", "this folder holds pairs")):
        assert main(["--out", str(tmp_path / "others"), "--source", str(source)]) == 3
        assert words in capsys.readouterr().err
    cv2.imwrite(str(sharp / "far_a.png"), make_image(120, 100))
    assert main(["--out", str(tmp_path / "others"), "--source", str(sharp)]) == 3
    assert "several photographs would become far_a.png" in capsys.readouterr().err
    assert not (tmp_path / "others").exists()
