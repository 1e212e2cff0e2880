"""PSNR and SSIM against formulas and a reference, and the demo clip against its promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks import demo_clip
from benchmarks.quality import main, measure
from runtime.metrics import psnr_db, ssim
from runtime.sources import open_source
from tests.conftest import DEMO_CLIP, picture, write_clip

SHARP_CLIP = DEMO_CLIP.with_name("demo_sharp.mp4")


def pair(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    truth = picture(*size)
    noise = np.random.default_rng(1).normal(0, 9, truth.shape)
    return np.clip(truth + noise, 0, 255).astype(np.uint8), truth


@pytest.mark.parametrize("size", [(64, 48), (11, 11), (97, 31)])
def test_metrics_agree_with_scikit_image(size: tuple[int, int]) -> None:
    noisy, truth = pair(size)
    assert psnr_db(noisy, truth) == pytest.approx(peak_signal_noise_ratio(truth, noisy, data_range=255), abs=1e-9)
    reference = structural_similarity(
        truth, noisy, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(noisy, truth) == pytest.approx(reference, abs=1e-6)


def test_equal_pictures() -> None:
    truth = picture(32, 32)
    assert psnr_db(truth, truth) == float("inf")
    assert ssim(truth, truth) == pytest.approx(1)


def test_pictures_below_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(picture(10, 40), picture(10, 40))


def test_command_prints_gain_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--blurred", str(DEMO_CLIP), "--restored", str(SHARP_CLIP), "--sharp", str(SHARP_CLIP)]
    assert main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    values = json.loads((tmp_path / "a.json").read_text())
    assert values["frames"] == 100
    assert values["restored_ssim"] == pytest.approx(1)
    assert 20 < values["blurred_psnr_db"] < 30
    assert "mean of 100 frames" in capsys.readouterr().out


def test_clips_that_do_not_match_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short, small = tmp_path / "short.mp4", tmp_path / "small.mp4"
    write_clip(tmp_path / "clip.mp4")
    write_clip(short, pts=[512 * index for index in range(9)])
    write_clip(small, size=(32, 24))
    for other, frame in ((short, 9), (small, 0)):
        arguments = [
            "--blurred",
            str(tmp_path / "clip.mp4"),
            "--restored",
            str(other),
            "--sharp",
            str(tmp_path / "clip.mp4"),
        ]
        assert main(arguments) == 3
        assert f"clips differ at frame {frame}" in capsys.readouterr().err


def test_committed_clip_is_what_the_script_renders() -> None:
    """Another codec version may move single codes, not pictures."""
    for (blurred, sharp), committed, truth in zip(
        demo_clip.exposures(), open_source(str(DEMO_CLIP)), open_source(str(SHARP_CLIP)), strict=True
    ):
        assert psnr_db(committed.pixels, blurred) > 30
        assert psnr_db(truth.pixels, sharp) > 30
        if committed.pts_seconds > 0.3:
            break


@pytest.mark.timeout(300)
def test_demo_gains_at_least_one_decibel(tmp_path: Path) -> None:
    """The promise of `make demo`, through the real command line, decoder and encoder."""
    from runtime import video

    out = tmp_path / "demo.mp4"
    assert video.main(["--source", str(DEMO_CLIP), "--out", str(out)]) == 0
    quality = measure(blurred=str(DEMO_CLIP), restored=str(out), sharp=str(SHARP_CLIP))
    assert quality.restored_psnr_db >= quality.blurred_psnr_db + 1.0
    assert quality.restored_ssim > quality.blurred_ssim
