"""Classical methods undo the blur they are made for, and their settings are those of the search."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.quality import classical
from benchmarks.quality.classical import GRIDS, METHODS, ClassicalEngine, choose_settings, main, make_gaussian_psf
from benchmarks.quality.ground_truth import Sample
from runtime.errors import UsageError
from runtime.metrics import psnr_db
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Return a photograph blurred with a Gaussian of 1.2 pixels, the blur that all three methods assume."""
    sharp = cv2.imread(str(ROOT / "calib_data" / "held_out" / "sharp" / "chelsea_1.jpg"))[:96, :128]
    return Sample(name="cat", blurred=cv2.GaussianBlur(sharp, (0, 0), 1.2), sharp=sharp)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("wiener", {"sigma_px": 1.2, "balance": 0.003}),
        ("richardson-lucy", {"sigma_px": 1.2, "iterations": 10}),
        ("unsharp", {"sigma_px": 1.2, "amount": 1.2}),
    ],
)
def test_a_known_blur_is_undone(name: str, settings: dict[str, float], sample: Sample) -> None:
    engine = ClassicalEngine(name, replace(METHODS[name], **settings))
    restored = engine.infer(sample.blurred[np.newaxis])
    assert restored.dtype == np.uint8
    assert restored.shape == (1, 96, 128, 3)
    assert psnr_db(restored[0], sample.sharp) > psnr_db(sample.blurred, sample.sharp) + 1.0
    engine.close()


@pytest.mark.parametrize("name", METHODS)
def test_an_image_of_one_colour_is_unchanged_in_every_channel(name: str) -> None:
    flat = np.full((40, 32, 3), (20, 120, 220), np.uint8)
    assert np.abs(METHODS[name].restore(flat).astype(int) - flat).max() <= 2


def test_settings_are_those_with_the_best_mean(sample: Sample) -> None:
    grid = {"sigma_px": (0.5, 1.2, 2.4), "balance": (0.003, 0.3)}
    best, best_db = choose_settings(METHODS["wiener"], grid, [sample])
    assert best == replace(METHODS["wiener"], sigma_px=1.2, balance=0.003)
    assert best_db == pytest.approx(psnr_db(best.restore(sample.blurred), sample.sharp))


def test_a_point_spread_function_is_centred_and_keeps_brightness() -> None:
    psf = make_gaussian_psf(1.7)
    assert psf.sum() == pytest.approx(1)
    assert np.array_equal(psf, psf[::-1, ::-1])
    assert np.unravel_index(psf.argmax(), psf.shape) == (psf.shape[0] // 2, psf.shape[1] // 2)


def test_the_settings_in_use_are_the_result_of_the_search(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Search on the images of the original search; the grids contain only neighbouring values, to save time."""
    neighbours = {
        name: {key: select_neighbours(getattr(METHODS[name], key), values) for key, values in grid.items()}
        for name, grid in GRIDS.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classical, "GRIDS", neighbours)
        assert main([]) == 0
    output = capsys.readouterr().out
    assert output.count(" dB") == 4
    assert "differs from the settings in use" not in output
    assert main(["--pairs", str(tmp_path)]) == 3


def select_neighbours(value: float, values: tuple[float, ...]) -> tuple[float, ...]:
    index = values.index(value)
    return values[max(0, index - 1) : index + 2]


def test_missing_scikit_image_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "find_spec", lambda _: None)
    ClassicalEngine("unsharp", METHODS["unsharp"])
    with pytest.raises(UsageError, match="scikit-image is not installed"):
        ClassicalEngine("wiener", METHODS["wiener"])
