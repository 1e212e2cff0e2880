"""Restoration without a network: that each method undoes the blur it is made for, and how its settings were chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.quality import classical
from benchmarks.quality.classical import GRIDS, METHODS, ClassicalEngine, chosen, gaussian, main
from benchmarks.quality.ground_truth import Known
from runtime.errors import UsageError
from runtime.metrics import psnr_db
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def known() -> Known:
    """A photograph blurred by a Gaussian of 1.2 pixels, which all three are made for."""
    sharp = cv2.imread(str(ROOT / "calib_data" / "held_out" / "sharp" / "chelsea_1.jpg"))[:96, :128]
    return Known(name="cat", blurred=cv2.GaussianBlur(sharp, (0, 0), 1.2), sharp=sharp)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("wiener", {"sigma_px": 1.2, "balance": 0.003}),
        ("richardson-lucy", {"sigma_px": 1.2, "iterations": 10}),
        ("unsharp", {"sigma_px": 1.2, "amount": 1.2}),
    ],
)
def test_a_known_blur_is_undone(name: str, settings: dict[str, float], known: Known) -> None:
    engine = ClassicalEngine(name, replace(METHODS[name], **settings))
    restored = engine.infer(known.blurred[np.newaxis])
    assert restored.dtype == np.uint8
    assert restored.shape == (1, 96, 128, 3)
    assert psnr_db(restored[0], known.sharp) > psnr_db(known.blurred, known.sharp) + 1.0
    engine.close()


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_of_one_colour_stays_and_colours_keep_their_places(name: str) -> None:
    flat = np.full((40, 32, 3), (20, 120, 220), np.uint8)
    assert np.abs(METHODS[name].restored(flat).astype(int) - flat).max() <= 2


def test_settings_are_those_with_the_best_mean(known: Known) -> None:
    grid = {"sigma_px": (0.5, 1.2, 2.4), "balance": (0.003, 0.3)}
    best, found_db = chosen(METHODS["wiener"], grid, [known])
    assert best == replace(METHODS["wiener"], sigma_px=1.2, balance=0.003)
    assert found_db == pytest.approx(psnr_db(best.restored(known.blurred), known.sharp))


def test_a_point_spread_function_is_centred_and_keeps_brightness() -> None:
    psf = gaussian(1.7)
    assert psf.sum() == pytest.approx(1)
    assert np.array_equal(psf, psf[::-1, ::-1])
    assert np.unravel_index(psf.argmax(), psf.shape) == (psf.shape[0] // 2, psf.shape[1] // 2)


def test_the_settings_are_what_the_command_finds(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """On the pictures that they were chosen by; the grids cut to the neighbours, so that it is quick."""
    near = {
        name: {key: around(getattr(METHODS[name], key), values) for key, values in grid.items()}
        for name, grid in GRIDS.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classical, "GRIDS", near)
        assert main([]) == 0
    told = capsys.readouterr().out
    assert told.count(" dB") == 4
    assert "not as set here" not in told
    assert main(["--pairs", str(tmp_path)]) == 3


def around(value: float, values: tuple[float, ...]) -> tuple[float, ...]:
    at = values.index(value)
    return values[max(0, at - 1) : at + 2]


def test_without_scikit_image_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "find_spec", lambda _: None)
    ClassicalEngine("unsharp", METHODS["unsharp"])
    with pytest.raises(UsageError, match="scikit-image is not installed"):
        ClassicalEngine("wiener", METHODS["wiener"])
