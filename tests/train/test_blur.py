"""Synthetic blur averages light, is reproducible, and shows the sharp image at the middle of the exposure."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_image
from train.data.blur import BlurConfig, draw_motion_path, expose, linear_from_srgb, make_blurred_pair, srgb_from_linear


def test_linear_light_is_the_standard_and_inverts() -> None:
    codes = np.arange(256, dtype=np.uint8)
    assert np.allclose(srgb_from_linear(linear_from_srgb(codes)), codes, atol=1e-3)
    assert linear_from_srgb(np.array([188], np.uint8))[0] == pytest.approx(0.5029, abs=1e-3)  # half the light


def test_exposure_averages_light_not_codes() -> None:
    """A pixel that is white for half of the exposure gets half the light: code 188, not 128."""
    wall = np.zeros((60, 60, 3), np.float32)
    wall[:, 30:] = 1.0
    path = np.array([[-20.0, 0], [20.0, 0]])
    codes = srgb_from_linear(expose(wall, path, roll_deg=0, size=(10, 10)))
    assert np.allclose(codes, 187.5, atol=0.5)


@given(seed=st.integers(0, 2**32), length_px=st.floats(0, 40), half=st.integers(4, 20))
def test_path_has_its_length_and_its_middle_is_the_ground_truth(seed: int, length_px: float, half: int) -> None:
    path = draw_motion_path(np.random.default_rng(seed), length_px=length_px, moments=2 * half + 1)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    assert steps.sum() == pytest.approx(length_px, abs=1e-6)
    assert not path[half].any()


def test_paths_are_distributed_as_those_of_a_real_camera() -> None:
    """Straightness and speed of the 240 fps clip of GOPRO_Large, windows of 11 frames: percentiles 10, 50 and 90."""
    rng = np.random.default_rng(0)
    paths = [draw_motion_path(rng, length_px=1.0, moments=11) for _ in range(2000)]
    chords = [np.linalg.norm(path[-1] - path[0]) for path in paths]
    assert np.allclose(np.percentile(chords, [10, 50, 90]), [0.827, 0.9965, 0.9996], atol=0.1)
    offsets = [np.linalg.norm(path.mean(axis=0)) for path in paths]
    assert np.allclose(np.percentile(offsets, [10, 50, 90]), [0.007, 0.028, 0.118], rtol=0.4)


def scene_with_margin(config: BlurConfig, size: int = 48) -> np.ndarray:
    return make_image(size + 2 * config.margin_px, size + 2 * config.margin_px)


def test_sharp_image_is_the_unchanged_centre() -> None:
    config = BlurConfig(object_share=0)
    image = scene_with_margin(config)
    blurred, sharp = make_blurred_pair(image, config=config, rng=np.random.default_rng(0))
    margin = config.margin_px
    assert np.array_equal(sharp, image[margin:-margin, margin:-margin])
    assert blurred.shape == sharp.shape == (48, 48, 3)


@pytest.mark.parametrize("codes_share", [0.0, 1.0])
def test_averages_of_codes_keep_the_mean_code_and_averages_of_light_the_mean_light(codes_share: float) -> None:
    config = BlurConfig(length_px=(20, 20), noise_sigma=0, jpeg_share=0, object_share=0, codes_share=codes_share)
    image = np.where(np.random.default_rng(0).random((24, 24, 1)) < 0.5, 20, 230).astype(np.uint8)
    image = np.kron(image, np.ones((8, 8, 3), np.uint8))
    blurred, sharp = make_blurred_pair(image, config=config, rng=np.random.default_rng(1))
    codes = abs(blurred.mean() - sharp.mean())
    light = 255 * abs(linear_from_srgb(blurred).mean() - linear_from_srgb(sharp).mean())
    assert (codes < 3 < light) if codes_share else (light < 3 < codes)


def test_no_motion_and_no_noise_change_nothing() -> None:
    config = BlurConfig(length_px=(0, 0), roll_deg=0, noise_sigma=0, jpeg_share=0)
    blurred, sharp = make_blurred_pair(scene_with_margin(config), config=config, rng=np.random.default_rng(0))
    assert np.array_equal(blurred, sharp)


def test_object_without_motion_is_part_of_the_sharp_image() -> None:
    config = BlurConfig(length_px=(0, 0), roll_deg=0, noise_sigma=0, jpeg_share=0, object_share=1, object_px=(9, 9))
    image = scene_with_margin(config)
    touched = []
    for seed in range(20):
        blurred, sharp = make_blurred_pair(image, config=config, rng=np.random.default_rng(seed))
        assert np.abs(blurred.astype(int) - sharp).max() <= 1
        touched.append(not np.array_equal(sharp, image[4:-4, 4:-4]))
    assert sum(touched) > 5


def test_object_moves_by_its_own_path() -> None:
    """In front of a still wall, a white object is smeared along its path, keeps its light, and stays centred."""
    wall, white = np.zeros((60, 60, 3), np.float32), np.zeros((60, 60, 4), np.float32)
    white[28:31, 28:31] = 1
    path = np.column_stack((np.linspace(-6, 6, 13), np.zeros(13)))
    light = expose(wall, 0 * path, roll_deg=0, size=(60, 60), moving_object=white, object_path=path)[..., 0]
    assert light.sum() == pytest.approx(9, rel=1e-4)
    rows, columns = np.nonzero(light > 1e-4)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (28, 30, 22, 36)
    assert (light * np.arange(60)).sum() / light.sum() == pytest.approx(29)


def test_object_covers_the_background() -> None:
    wall, black = np.ones((40, 40, 3), np.float32), np.zeros((40, 40, 4), np.float32)
    black[10:30, 10:30, 3] = 1  # colour 0, opaque
    still = np.zeros((9, 2))
    light = expose(wall, still, roll_deg=0, size=(40, 40), moving_object=black, object_path=still)
    assert light[12:28, 12:28].max() == 0
    assert light[:8].min() == pytest.approx(1)


def test_images_need_not_be_square() -> None:
    config = BlurConfig()
    image = make_image(50 + 2 * config.margin_px, 30 + 2 * config.margin_px)
    blurred, sharp = make_blurred_pair(image, config=config, rng=np.random.default_rng(0))
    assert blurred.shape == sharp.shape == (30, 50, 3)


def test_same_seed_gives_the_same_image() -> None:
    config = BlurConfig()
    first, second, other = (
        make_blurred_pair(scene_with_margin(config), config=config, rng=np.random.default_rng(s))[0] for s in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_averages_of_codes_have_few_frames() -> None:
    """A dot that moves far becomes a row of dots, where averages of light give a line."""
    config = BlurConfig(length_px=(60, 60), noise_sigma=0, jpeg_share=0, object_share=0, roll_deg=0, codes_share=1)
    image = np.zeros((121 + 2 * config.margin_px,) * 2 + (3,), np.uint8)
    middle = image.shape[0] // 2
    image[middle, middle] = 255
    for seed in range(3):
        blurred, _ = make_blurred_pair(image, config=config, rng=np.random.default_rng(seed))
        dots, _ = cv2.connectedComponents((blurred[..., 0] > 0).astype(np.uint8))
        assert 5 < dots - 1 <= 21


@pytest.mark.parametrize(
    "values",
    [
        {"length_px": (3, 2)},
        {"length_px": (-1, 2)},
        {"length_px": "far"},
        {"jpeg_share": 1.5},
        {"object_share": -1},
        {"object_px": (0, 2)},
    ],
)
def test_wrong_settings_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BlurConfig(**values)


def make_pairs(count: int, **settings: object) -> list[tuple[np.ndarray, np.ndarray]]:
    config = BlurConfig(object_share=0, **settings)
    image = scene_with_margin(config)
    return [make_blurred_pair(image, config=config, rng=np.random.default_rng(seed)) for seed in range(count)]


def test_still_images_come_back_unchanged() -> None:
    pairs = make_pairs(20, still_share=0.5, length_px=(8, 8))
    equal = sum(np.array_equal(blurred, sharp) for blurred, sharp in pairs)
    assert 4 < equal < 16


def test_a_photograph_out_of_focus_stays_so_in_the_ground_truth() -> None:
    (_, plain), *_ = make_pairs(1)
    pairs = make_pairs(8, defocus_share=1.0, defocus_px=(3.0, 6.0), still_share=1.0)
    assert all(np.array_equal(blurred, sharp) for blurred, sharp in pairs)
    assert all(sharp.mean() == pytest.approx(plain.mean(), abs=8) for _, sharp in pairs)
    assert sum(not np.array_equal(sharp, plain) for _, sharp in pairs) >= 4  # the part may lie outside


def test_short_paths_are_more_frequent_with_a_larger_exponent() -> None:
    def measure_blur(exponent: float) -> float:
        settings = {"length_px": (0, 24), "roll_deg": 0, "noise_sigma": 0, "jpeg_share": 0}
        pairs = make_pairs(30, length_exponent=exponent, **settings)
        return float(np.median([np.abs(blurred.astype(float) - sharp).mean() for blurred, sharp in pairs]))

    assert measure_blur(4.0) < 0.7 * measure_blur(1.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"length_exponent": 0.0}, "length_exponent must be above 0"),
        ({"still_share": 1.5}, "still_share must be from 0 to 1"),
        ({"defocus_px": (0.0, 2.0)}, "defocus_px must be"),
    ],
)
def test_settings_without_meaning_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BlurConfig(**settings)
