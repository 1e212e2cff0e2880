"""Crops drawn anew in every epoch, from decoded images on disk."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import OutputError
from runtime.image_files import read_image
from tests.train.test_training import same_state, small, train_and_die, weights
from train.config import DataConfig
from train.data import image_cache
from train.data.blur import BlurConfig
from train.data.crops import draw_pair
from train.data.datasets import FreshCrops, open_dataset
from train.data.image_cache import ImageCache, prepare_images
from train.data.index import find_samples
from train.training.loop import train


def test_decoded_images_are_those_of_the_files_and_are_written_once(gopro: Path, photos: Path, tmp_path: Path) -> None:
    samples = [*find_samples(gopro).train[:3], *find_samples(photos).train]
    folder = prepare_images(samples, cache=tmp_path, key="k")
    written = (folder / "pixels.bin").stat()
    assert prepare_images(samples, cache=tmp_path, key="k") == folder
    assert (folder / "pixels.bin").stat().st_mtime_ns == written.st_mtime_ns
    assert prepare_images(samples[1:], cache=tmp_path, key="k") != folder
    images = ImageCache(folder)
    assert len(images) == 7
    for image, sample in zip(images, samples, strict=False):
        if sample.blurred:
            assert np.array_equal(image[..., :3], read_image(sample.blurred))
        assert np.array_equal(image[..., -3:], read_image(sample.sharp))
    assert len(pickle.dumps(images)) < 2000  # a worker process maps the file itself


def test_a_full_disk_leaves_nothing_behind(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_cache.np, "save", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        prepare_images(find_samples(photos).train, cache=tmp_path / "crops", key="k")
    assert list((tmp_path / "crops").iterdir()) == []


@pytest.mark.parametrize("kind", ["pairs", "photographs"])
def test_crops_depend_on_seed_epoch_and_row_alone(kind: str, gopro: Path, photos: Path, tmp_path: Path) -> None:
    config = DataConfig(size_px=(48, 48), crops=16, flips=True, quarter_turns=True, scale=(0.5, 1.0), fresh_crops=True)
    samples = find_samples(gopro if kind == "pairs" else photos).train
    first, second, other = (
        open_dataset([samples], config, seed=seed, augment=True, cache=tmp_path, key=kind) for seed in (1, 1, 2)
    )
    assert isinstance(first, FreshCrops)
    assert len(list(tmp_path.iterdir())) == 1
    pair, different, later = first[0, 2], other[0, 2], first[1, 2]
    assert pair[0].shape == pair[1].shape == (48, 48, 3)
    assert np.array_equal(pickle.loads(pickle.dumps(second))[0, 2], pair)  # noqa: S301 - our own
    second[1, 5]
    assert np.array_equal(second[0, 2], pair)
    assert not np.array_equal(pair, different)
    assert not np.array_equal(pair, later)
    assert 0.5 < np.abs(pair[0].astype(int) - pair[1]).mean() < 40
    drawn = np.stack([first[epoch, row][1] for epoch in range(2) for row in range(16)])
    assert len(np.unique(drawn.reshape(32, -1), axis=0)) == 32


def test_pairs_are_cut_at_the_same_place(gopro: Path) -> None:
    sample = find_samples(gopro).train[0]
    sharp = read_image(sample.sharp)
    pair = draw_pair(
        np.concatenate((255 - sharp, sharp), axis=2), DataConfig(size_px=(32, 32)), np.random.default_rng(3)
    )
    assert np.array_equal(255 - pair[0], pair[1])
    windows = np.lib.stride_tricks.sliding_window_view(sharp, (32, 32, 3))[:, :, 0]
    assert (windows == pair[1]).all(axis=(2, 3, 4)).any()


def test_folders_are_used_in_proportion_to_their_shares(gopro: Path, photos: Path, tmp_path: Path) -> None:
    groups = [find_samples(gopro).train, find_samples(photos).train]
    config = DataConfig(size_px=(32, 32), crops=40, shares=(3.0, 1.0), fresh_crops=True)
    crops = open_dataset(groups, config, seed=0, augment=True, cache=tmp_path, key="k")
    crops[4, 0]
    assert sum(image < 12 for image in crops._order[1]) == 30
    assert set(crops._order[1]) == set(range(16))


def test_a_resumed_run_and_worker_processes_draw_the_same_crops(photos: Path, tmp_path: Path) -> None:
    recipe = small("data.fresh_crops=True")
    train(recipe, data=[photos], run=tmp_path / "whole")
    train_and_die(recipe, data=[photos], run=tmp_path / "broken", in_step=6)
    train(recipe, data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "broken")
    train(small("data.fresh_crops=True", "workers=1"), data=[photos], run=tmp_path / "workers")
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "workers")
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_whole_images_have_no_fresh_crops() -> None:
    with pytest.raises(ValueError, match="fresh_crops need square crops"):
        DataConfig(view="resize", fresh_crops=True)


def test_blur_grows_from_epoch_to_epoch(photos: Path, tmp_path: Path) -> None:
    blur = BlurConfig(length_px=(0.0, 30.0), noise_sigma=0.0, jpeg_share=0.0, object_share=0.0, curriculum_epochs=8)
    config = DataConfig(size_px=(48, 48), crops=16, fresh_crops=True, blur=blur)
    crops = open_dataset([find_samples(photos).train], config, seed=0, augment=True, cache=tmp_path, key="k")
    first, last = (
        np.mean([np.abs(np.subtract(*crops[epoch, row], dtype=float)).mean() for row in range(16)]) for epoch in (0, 7)
    )
    assert first < 0.6 * last
