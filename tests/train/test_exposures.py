"""Pairs out of a fast clip: means of frames around their truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import write_clip
from train.data.index import find_samples
from train.exposures import exposures, frames_of, main, mean_picture


def flat(*codes: int) -> list[np.ndarray]:
    return [np.full((4, 6, 3), code, np.uint8) for code in codes]


def test_light_and_codes_have_means_of_their_own() -> None:
    """Black and white alike: half the light is code 188, half the codes 128."""
    frames = flat(0, 0, 255, 255)
    assert mean_picture(frames, "light")[0, 0].tolist() == [188] * 3
    assert mean_picture(frames, "codes")[0, 0].tolist() == [128] * 3


def test_an_exposure_lies_around_its_truth_and_lengths_take_turns() -> None:
    made = list(exposures(iter(flat(*range(0, 100, 4))), lengths=(3, 7), stride=2, responses=("codes",)))
    assert [index for index, *_ in made] == list(range(3, 22, 2))
    for index, blurred, sharp in made:
        assert sharp[0, 0, 0] == 4 * index
        assert blurred[0, 0, 0] == 4 * index  # of a steady change the mean is the middle


def test_the_longer_exposure_sees_more() -> None:
    flash = flat(*[0] * 6, 210, *[0] * 6)
    seen = {
        length: list(exposures(iter(flash), lengths=(length,), stride=1, responses=("codes",))) for length in (3, 7)
    }
    at_middle = {length: next(b[0, 0, 0] for index, b, _ in made if index == 6) for length, made in seen.items()}
    assert at_middle == {3: 70, 7: 30}


def test_the_command_writes_pairs_that_training_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "clip.mp4", size=(96, 64))
    out = tmp_path / "pairs" / "GOPR01"
    arguments = ["--source", str(tmp_path / "clip.mp4"), "--out", str(out), "--lengths", "3", "5", "--stride", "2"]
    assert main(arguments) == 0
    frames = list(frames_of(tmp_path / "clip.mp4"))
    samples = find_samples(tmp_path / "pairs").train
    assert [sample.sharp.name for sample in samples] == [f"{index:06d}.png" for index in range(2, len(frames) - 2, 2)]
    assert np.array_equal(cv2.imread(str(samples[0].sharp)), frames[2])
    assert main(arguments) == 2  # nothing is written over
    assert "pairs are there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "lengths", "words"),
    [
        (lambda path: path.write_bytes(b"junk"), "3", "cannot be read as a video"),
        (lambda path: write_clip(path, size=(96, 64)), "99", "fewer than 99 frames"),
    ],
)
def test_a_clip_that_gives_no_pair_is_refused(
    make: object, lengths: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "clip.mp4")
    assert main(["--source", str(tmp_path / "clip.mp4"), "--out", str(tmp_path / "out"), "--lengths", lengths]) == 3
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_even_exposure_has_no_middle(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--source", "a.mp4", "--out", "b", "--lengths", "4"])
    assert "must be odd" in capsys.readouterr().err
