"""PSNR and SSIM against scikit-image, the command with clips and pairs, and the gain of the demo clip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from benchmarks.assets import demo_clip
from benchmarks.harness.results import read_results
from benchmarks.quality.__main__ import main
from benchmarks.quality.scores import flicker_codes
from runtime.engines import BUNDLED
from runtime.engines.names import MODELS
from runtime.metrics import grid_codes, psnr_db, ssim
from runtime.sources import open_source
from tests.conftest import DEMO_CLIP, ROOT, make_image, write_clip
from tests.train.conftest import lpips_file

SHARP_CLIP = DEMO_CLIP.with_name("demo_sharp.mp4")


def make_pair(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    sharp = make_image(*size)
    noise = np.random.default_rng(1).normal(0, 9, sharp.shape)
    return np.clip(sharp + noise, 0, 255).astype(np.uint8), sharp


@pytest.mark.parametrize("size", [(64, 48), (11, 11), (97, 31)])
def test_metrics_agree_with_scikit_image(size: tuple[int, int]) -> None:
    noisy, sharp = make_pair(size)
    assert psnr_db(noisy, sharp) == pytest.approx(peak_signal_noise_ratio(sharp, noisy, data_range=255), abs=1e-9)
    reference = structural_similarity(
        sharp, noisy, channel_axis=2, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(noisy, sharp) == pytest.approx(reference, abs=1e-6)


def test_equal_images_have_infinite_psnr() -> None:
    sharp = make_image(32, 32)
    assert psnr_db(sharp, sharp) == float("inf")
    assert ssim(sharp, sharp) == pytest.approx(1)


def test_images_smaller_than_the_ssim_window_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(make_image(10, 40), make_image(10, 40))


def test_a_grid_is_found_with_its_strength_in_codes() -> None:
    smooth = cv2.GaussianBlur(make_image(160, 120), (0, 0), 2)
    grid = smooth.astype(int)
    grid[::4, ::4] += 12
    variance = 144 * (1 / 16 - 1 / 256)  # of 12 codes on one of 16 pixels
    assert grid_codes(smooth) < 0.2
    assert grid_codes(np.clip(grid, 0, 255).astype(np.uint8)) == pytest.approx(variance**0.5, rel=0.05)
    shifted = np.roll(grid, (1, 2), (0, 1))[:117, :158]
    assert grid_codes(np.clip(shifted, 0, 255).astype(np.uint8)) == pytest.approx(variance**0.5, rel=0.05)
    with pytest.raises(ValueError, match="at least 64"):
        grid_codes(smooth[:60])


def test_perceptual_scores_are_columns_and_results_if_they_are_asked_for(
    tmp_path: Path, invert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lpips_file(tmp_path / "lpips.safetensors")
    for kind, seed in (("blur", 1), ("sharp", 2)):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pairs" / kind / "a.png"), make_image(200, 100, seed=seed))
    arguments = ["--pairs", str(tmp_path / "pairs"), "--engine", str(invert), "--json", str(tmp_path / "a.json")]
    assert main([*arguments, "--perceptual", str(tmp_path / "lpips.safetensors")]) == 0
    values = read(tmp_path / "a.json")
    for scores in (values["blurred"], *values["restored"]):
        assert scores["lpips"] > 0 <= scores["grid_codes"]
        assert scores["niqe"] > 1
    assert "| LPIPS | NIQE | grid (codes) |" in capsys.readouterr().out
    assert main([*arguments, "--perceptual", str(tmp_path / "none")]) == 2
    assert "python -m train.lpips_weights" in capsys.readouterr().err


def read(path: Path) -> dict:
    return read_results(path)["results"]


def test_command_prints_gain_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--blurred", str(DEMO_CLIP), "--restored", str(SHARP_CLIP), "--sharp", str(SHARP_CLIP)]
    assert main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    values = read(tmp_path / "a.json")
    (restored,) = values["restored"]
    assert (values["source"], values["frames"]) == ("clips", 100)
    assert restored["ssim"] == pytest.approx(1)
    assert restored["psnr_db"] == 99
    assert (restored["flicker_codes"], restored["harmed_frames"], restored["largest_loss_db"]) == (0, 0, 0)
    assert (restored["engine"], restored["host"], restored["gain_db_per_ms"]) == (None, None, None)
    assert 20 < values["blurred"]["psnr_db"] < 30
    assert values["blurred"]["flicker_codes"] > 5
    assert "Means over 100 frames" in capsys.readouterr().out


def test_flicker_is_the_error_of_the_difference_between_frames() -> None:
    first, second = make_image(32, 24, seed=1) // 2 + 40, make_image(32, 24, seed=2) // 2 + 40
    assert flicker_codes((first, second), (first, second)) == 0
    assert flicker_codes((first + 9, second + 9), (first, second)) == 0, "a constant error does not flicker"
    jumps = [flicker_codes((first, second + jitter), (first, second)) for jitter in (1, 5, 20)]
    assert jumps == pytest.approx([1, 5, 20]), "the brightness jumps by that many codes"
    half = second.copy()
    half[:, ::2] += 8
    assert flicker_codes((first, half), (first, second)) == pytest.approx(8 / np.sqrt(2)), "root mean square"
    assert flicker_codes((first, first), (first, second)) == pytest.approx(
        np.sqrt(np.mean((second - 0.0 - first) ** 2))
    )


def write_pairs(folder: Path, *, count: int, restored: bool = False) -> None:
    """Write pairs, each more blurred than the one before; restored images are sharp, but the first is black."""
    for kind in ("blur", "sharp", "restored"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        sharp = np.random.default_rng(index).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "sharp" / f"p{index}.png"), sharp)
        cv2.imwrite(str(folder / "blur" / f"p{index}.bmp"), cv2.GaussianBlur(sharp, (0, 0), 0.4 + 0.1 * index))
        if restored:
            cv2.imwrite(str(folder / "restored" / f"p{index}.png"), sharp if index else 0 * sharp)


def test_pairs_are_grouped_by_level_of_blur_and_the_worst_are_written(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", count=14, restored=True)
    restored_folder = tmp_path / "pairs" / "restored"
    arguments = [
        "--pairs",
        str(tmp_path / "pairs"),
        "--restored",
        str(restored_folder),
        "--worst",
        str(tmp_path / "worst"),
    ]
    assert main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    values = read(tmp_path / "a.json")
    (restored,) = values["restored"]
    levels = restored["levels"]
    assert [(level["level"], level["frames"]) for level in levels] == [
        ("least", 4),
        ("less", 4),
        ("more", 3),
        ("most", 3),
    ]
    before = [level["blurred_psnr_db"] for level in levels]
    assert before == sorted(before, reverse=True)
    assert [level["psnr_db"] for level in levels[1:]] == [99, 99, 99]
    assert levels[0]["gain_db"] < levels[1]["gain_db"]
    assert np.average([level["gain_db"] for level in levels], weights=[4, 4, 3, 3]) == pytest.approx(
        restored["gain_db"], abs=1e-3
    )
    assert (restored["harmed_frames"], restored["largest_loss_frame"]) == (1, "p0")
    assert restored["largest_loss_db"] == -restored["worst"][0]["gain_db"] > 5
    assert restored["flicker_codes"] is None, "pairs are not consecutive frames"
    images = sorted((tmp_path / "worst" / "restored").iterdir())
    assert len(images) == len(restored["worst"]) == 10
    gains = [frame["gain_db"] for frame in restored["worst"]]
    assert gains == sorted(gains)
    assert images[0].name.startswith("01_p0_-")
    blurred, black, sharp = np.hsplit(cv2.imread(str(images[0])), 3)
    assert not black.any()
    assert np.array_equal(sharp, cv2.imread(str(tmp_path / "pairs" / "sharp" / "p0.png")))
    assert np.array_equal(blurred, cv2.imread(str(tmp_path / "pairs" / "blur" / "p0.bmp")))


def test_engines_run_on_whole_frames_and_in_tiles(tmp_path: Path, invert: Path, clip: Path) -> None:
    arguments = ["--blurred", str(clip), "--sharp", str(clip), "--json", str(tmp_path / "a.json"), "--threads", "1"]
    assert main([*arguments, "--engine", f"{invert}@cpu", "--engine", f"{invert}@cpu", "--classical"]) == 0
    values = read(tmp_path / "a.json")
    first, second, *classical = values["restored"]
    assert [first["name"], second["name"]] == ["invert.onnx@cpu", "invert.onnx@cpu #2"]
    assert [method["name"] for method in classical] == ["wiener", "richardson-lucy", "unsharp"]
    assert first["psnr_db"] == second["psnr_db"] < 30
    assert first["harmed_frames"] == 10
    assert first["gain_db_per_ms"] < 0
    assert first["host"]["n"] == 10
    assert main([*arguments, "--engine", f"{invert}@cpu", "--tile", "64x64", "--overlap", "8"]) == 0
    (tiled,) = read(tmp_path / "a.json")["restored"]
    assert "tiles of 64x64" in tiled["engine"]["backend"]
    assert tiled["psnr_db"] == first["psnr_db"]


def test_an_engine_for_planes_restores_pairs(tmp_path: Path) -> None:
    for kind in ("blur", "sharp"):
        (tmp_path / kind).mkdir()
        cv2.imwrite(str(tmp_path / kind / "a.png"), cv2.GaussianBlur(make_image(96, 64), (0, 0), 3))
    planes = str(MODELS / "edge-s_int8_cpu_yuv420.onnx")
    assert main(["--pairs", str(tmp_path), "--engine", f"{planes}@cpu", "--json", str(tmp_path / "a.json")]) == 0
    (restored,) = read(tmp_path / "a.json")["restored"]
    assert restored["psnr_db"] > 20


def test_the_bundled_engine_is_the_default(tmp_path: Path, clip: Path) -> None:
    assert main(["--blurred", str(clip), "--sharp", str(clip), "--json", str(tmp_path / "a.json")]) == 0
    (bundled,) = read(tmp_path / "a.json")["restored"]
    assert bundled["name"] == BUNDLED.name
    assert bundled["engine"]["precision"] == "int8_cpu"


def test_incomplete_or_unequal_pairs_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path, count=2)
    lone = tmp_path / "sharp" / "p1.png"
    cv2.imwrite(str(lone), np.zeros((24, 30, 3), np.uint8))
    assert main(["--pairs", str(tmp_path)]) == 3
    assert "differs in size" in capsys.readouterr().err
    lone.unlink()
    assert main(["--pairs", str(tmp_path)]) == 3
    assert "0 images named p1, expected one" in capsys.readouterr().err
    assert main(["--pairs", str(tmp_path / "sharp")]) == 3
    assert "no pairs found" in capsys.readouterr().err
    for kind in ("blur", "sharp"):
        (tmp_path / "small" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "small" / kind / "p.png"), np.zeros((10, 40, 3), np.uint8))
    assert main(["--pairs", str(tmp_path / "small")]) == 3
    assert "40x10 is too small to compare" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_an_output_error(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    both = ["--blurred", str(clip), "--sharp", str(clip), "--restored", str(clip)]
    assert main([*both, "--worst", str(tmp_path / "file")]) == 6
    assert "cannot write output" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--blurred", "a"], ["--pairs", "a", "--sharp", "b"]])
def test_a_clip_or_pairs_are_required(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(arguments)
    assert ending.value.code == 2


def test_quality_needs_only_the_packages_of_the_runtime() -> None:
    absent = ("torch", "onnx", "skimage", "jsonschema")
    code = f"import sys; sys.modules.update(dict.fromkeys({absent})); import benchmarks.quality.__main__"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_clips_that_do_not_match_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_the_committed_clip_is_what_the_script_renders() -> None:
    """Compare with a tolerance: another version of a codec may change single codes."""
    for (blurred, sharp), committed_blurred, committed_sharp in zip(
        demo_clip.render_frames(), open_source(str(DEMO_CLIP)), open_source(str(SHARP_CLIP)), strict=True
    ):
        assert psnr_db(committed_blurred.pixels, blurred) > 30
        assert psnr_db(committed_sharp.pixels, sharp) > 30
        if committed_blurred.pts_seconds > 0.3:
            break


@pytest.mark.timeout(300)
def test_the_demo_has_the_gain_that_the_readme_states(tmp_path: Path) -> None:
    """Run the steps of `make demo` through the real command line, decoder and encoder."""
    from runtime import video

    out = tmp_path / "demo.mp4"
    assert video.main(["--source", str(DEMO_CLIP), "--out", str(out)]) == 0
    arguments = ["--blurred", str(DEMO_CLIP), "--restored", str(out), "--sharp", str(SHARP_CLIP)]
    assert main([*arguments, "--json", str(tmp_path / "a.json")]) == 0
    values = read(tmp_path / "a.json")
    (restored,) = values["restored"]
    assert restored["gain_db"] >= 1.6
    assert restored["ssim"] > values["blurred"]["ssim"]
    assert restored["flicker_codes"] < values["blurred"]["flicker_codes"]


def test_a_clip_that_changes_its_size_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("blurred", "sharp"):
        (tmp_path / kind).mkdir()
        for index, (width, height) in enumerate(((64, 48), (64, 48), (80, 60))):
            cv2.imwrite(str(tmp_path / kind / f"{index}.png"), make_image(width, height, seed=index))
    assert main(["--blurred", str(tmp_path / "blurred"), "--sharp", str(tmp_path / "sharp")]) == 3
    assert "error: the clip changes its size at frame 2 (64x48 to 80x60): " in capsys.readouterr().err
