"""The image of docs/gan.md."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.assets import eye_crops
from benchmarks.assets.eye_crops import CROPS, ENLARGEMENT, SIDE_PX, main
from runtime.frame import Pixels


def test_the_table_has_a_row_for_each_crop_and_a_column_for_each_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eye_crops, "CROPS", CROPS[:2])
    table = eye_crops.draw_table(("edge-s",))
    blurred, restored, sharp = np.split(table[40 : 40 + SIDE_PX * ENLARGEMENT - 20, :], 3, axis=1)

    def error(image: Pixels) -> float:
        return float(np.square(image.astype(float) - sharp)[:, 40:-40].mean())

    assert 0 < error(restored) != error(blurred)
    assert len(table) > 2 * SIDE_PX * ENLARGEMENT
    monkeypatch.setattr(eye_crops, "draw_table", lambda: table)
    assert main(["--out", str(tmp_path / "table.jpg")]) == 0
    assert cv2.imread(str(tmp_path / "table.jpg")).shape == table.shape
    assert main(["--out", str(tmp_path / "table.jpg" / "below")]) == 6
