"""Exposures of a fast clip are means of the frames around the sharp one."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import write_clip
from train.data.index import find_samples
from train.exposures import ExposureConfig, average_frames, iterate_exposures, main, read_frames


def flat(*codes: int) -> list[np.ndarray]:
    return [np.full((4, 6, 3), code, np.uint8) for code in codes]


def test_mean_of_light_and_mean_of_codes_differ() -> None:
    """Half black, half white: half the light is code 188, the mean code is 128."""
    frames = flat(0, 0, 255, 255)
    assert average_frames(frames, "light")[0, 0].tolist() == [188] * 3
    assert average_frames(frames, "codes")[0, 0].tolist() == [128] * 3


def test_an_exposure_is_centred_on_the_sharp_frame_and_lengths_alternate() -> None:
    made = list(iterate_exposures(iter(flat(*range(0, 100, 4))), ExposureConfig((3, 7), 2, ("codes",))))
    assert [index for index, *_ in made] == list(range(3, 22, 2))
    for index, blurred, sharp in made:
        assert sharp[0, 0, 0] == 4 * index
        assert blurred[0, 0, 0] == 4 * index  # the mean of a steady change is its middle


def test_a_longer_exposure_averages_more_frames() -> None:
    flash = flat(*[0] * 6, 210, *[0] * 6)
    seen = {length: list(iterate_exposures(iter(flash), ExposureConfig((length,), 1, ("codes",)))) for length in (3, 7)}
    at_middle = {length: next(b[0, 0, 0] for index, b, _ in made if index == 6) for length, made in seen.items()}
    assert at_middle == {3: 70, 7: 30}


def test_the_command_writes_pairs_that_training_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "clip.mp4", size=(96, 64))
    out = tmp_path / "pairs" / "GOPR01"
    arguments = ["--source", str(tmp_path / "clip.mp4"), "--out", str(out), "--lengths", "3", "5", "--stride", "2"]
    assert main(arguments) == 0
    frames = list(read_frames(tmp_path / "clip.mp4"))
    samples = find_samples(tmp_path / "pairs").train
    assert [sample.sharp.name for sample in samples] == [f"{index:06d}.png" for index in range(2, len(frames) - 2, 2)]
    assert np.array_equal(cv2.imread(str(samples[0].sharp)), frames[2])
    assert main(arguments) == 2  # existing pairs are kept
    assert "this folder holds pairs already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "lengths", "words"),
    [
        (lambda path: path.write_bytes(b"junk"), "3", "cannot be read as a video"),
        (lambda path: write_clip(path, size=(96, 64)), "99", "fewer than 99 frames"),
    ],
)
def test_a_clip_without_a_whole_exposure_is_refused(
    make: object, lengths: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "clip.mp4")
    assert main(["--source", str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "out"), "--lengths", lengths]) == 3
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_that_are_not_utf8_do_not_crash_opencv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "clip.mp4", size=(96, 64))
    odd = tmp_path / os.fsdecode(b"\xff.mp4")
    assert main(["--source", str(odd), "--out", str(tmp_path / "out"), "--lengths", "3"]) == 3
    assert "name of the clip is not UTF-8" in capsys.readouterr().err
    assert main(["--source", str(tmp_path / "clip.mp4"), "--out", str(odd), "--lengths", "3"]) == 0
    assert list((odd / "blur").glob("*.png"))


def test_an_even_length_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--source", "a.mp4", "--out", "b", "--lengths", "4"])
    assert "expected an odd number from 3" in capsys.readouterr().err
