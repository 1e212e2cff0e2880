"""Images are found, split and checked; both images of a pair undergo the same changes."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import InputError, OutputError
from runtime.image_files import read_image
from tests.conftest import make_image
from tests.train.conftest import scene, write_gopro
from train.config import DataConfig
from train.data.blur import BlurConfig
from train.data.crops import interleave_samples
from train.data.datasets import Augmentation, DeviceCrops, ImageDataset, open_dataset
from train.data.index import check_images, compute_fingerprint, find_samples, split_samples
from train.errors import DataError
from train.training.loaders import cut_squares, iterate_training_keys, list_validation_keys


def names(samples: list) -> list[str]:
    return [f"{sample.sequence}/{sample.sharp.name}" for sample in samples]


def test_gopro_large_is_found_as_it_is_distributed(gopro: Path) -> None:
    found = find_samples(gopro)
    assert (len(found.train), len(found.test)) == (12, 3)
    assert {sample.blurred.parent.name for sample in found.train} == {"blur"}
    gamma = find_samples(gopro, blurred_folder="blur_gamma")
    assert {sample.blurred.parent.name for sample in gamma.test} == {"blur_gamma"}
    assert all(sample.blurred.name == sample.sharp.name for sample in found.train + found.test)


def test_plain_pairs_and_sharp_images_are_found(gopro: Path, photos: Path) -> None:
    pairs = find_samples(gopro / "train" / "GOPR01")
    assert (len(pairs.train), len(pairs.test), pairs.train[0].blurred is None) == (4, 0, False)
    sharp = find_samples(photos)
    assert (len(sharp.train), sharp.train[0].blurred) == (4, None)


def test_blur_grows_from_epoch_to_epoch_but_not_in_validation(photos: Path) -> None:
    samples = find_samples(photos).train
    still = {"noise_sigma": 0.0, "jpeg_share": 0.0, "object_share": 0.0, "roll_deg": 0.0}

    def errors(augment: bool, **blur: object) -> list[float]:
        config = DataConfig(view="resize", size_px=(96, 64), blur=BlurConfig(length_px=(0.0, 30.0), **still, **blur))
        dataset = ImageDataset(samples, config, seed=0, augment=augment)
        pairs = [[dataset[epoch, row] for row in range(len(samples))] for epoch in range(8)]
        return [float(np.mean([np.abs(b.astype(float) - s).mean() for b, s in each])) for each in pairs]

    growing, whole = errors(augment=True, curriculum_epochs=6), errors(augment=True)
    assert growing[0] < 0.5 * whole[0]
    assert growing[1] < whole[1]
    assert growing[5:] == whole[5:]  # the whole range from the sixth epoch on
    assert errors(augment=False, curriculum_epochs=6) == errors(augment=False)
    with pytest.raises(ValueError, match="needs images that are blurred in each epoch"):
        DataConfig(blur=BlurConfig(curriculum_epochs=2))


def test_whole_sequences_are_held_out(gopro: Path) -> None:
    train, validation = split_samples(find_samples(gopro), DataConfig())
    assert {sample.sequence for sample in validation} == {"train/GOPR01"}
    assert {sample.sequence for sample in train} == {"train/GOPR02", "train/GOPR03"}
    train, validation = split_samples(find_samples(gopro), DataConfig(validation="test"))
    assert (len(train), {sample.sequence for sample in validation}) == (12, {"test/GOPR04"})


def test_a_share_of_the_images_is_held_out_of_a_single_sequence(photos: Path) -> None:
    train, validation = split_samples(find_samples(photos), DataConfig(validation_share=0.5))
    assert (names(train), names(validation)) == (["./1.png", "./2.png"], ["./0.png", "./3.png"])


def test_all_problems_are_listed_before_the_first_step(tmp_path: Path) -> None:
    root = write_gopro(tmp_path, sequences={"train/A": 6})
    folder = root / "train" / "A"
    (folder / "sharp" / "000000.png").write_bytes(b"junk")
    whole = (folder / "blur" / "000001.png").read_bytes()
    (folder / "blur" / "000001.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(folder / "blur" / "000002.png"), make_image(40, 30))
    (folder / "sharp" / "000003.png").write_bytes(b"")
    cv2.imwrite(str(folder / "blur" / "000004.jpg"), scene(96, 80, seed=1))
    (folder / "blur" / "000004.png").unlink()
    jpeg = folder / "blur" / "000004.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-2])  # OpenCV 4 decodes it without an error
    with pytest.raises(DataError) as refusal:
        check_images(find_samples(root).train, DataConfig(view="resize"), where=str(root))
    lines = str(refusal.value).splitlines()
    assert lines[0].startswith("5 problems with the images")
    for number, words in enumerate(
        ("not an image", "", "blurred image is 40x30, sharp one 96x80", "not an image", "image is cut off")
    ):
        assert any(f"00000{number}" in line and words in line for line in lines[1:]), lines


def test_images_without_a_partner_are_listed(tmp_path: Path) -> None:
    root = write_gopro(tmp_path, sequences={"train/A": 30})
    for index in range(25):
        (root / "train" / "A" / ("blur" if index % 2 else "sharp") / f"{index:06d}.png").unlink()
    with pytest.raises(DataError) as refusal:
        find_samples(root)
    lines = str(refusal.value).splitlines()
    assert len(lines) == 22
    assert "25 problems" in lines[0]
    assert "image without a partner: train/A/blur/000000.png" in lines[1]
    assert "and 5 more" in lines[-1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "none", "no such folder"),
        (lambda root: root, "found 0 images"),
        (lambda root: (root / "a" / "sharp").mkdir(parents=True) or root, "but no blur/"),
    ],
)
def test_folders_without_images_are_refused(make: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        find_samples(make(tmp_path))


def test_bytes_after_the_end_of_a_jpeg_are_ignored(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "phone.jpg"), make_image(40, 30))
    with (tmp_path / "phone.jpg").open("ab") as file:
        file.write(bytes(3000))  # phones put a short video there
    assert read_image(tmp_path / "phone.jpg").shape == (30, 40, 3)


def test_a_header_that_claims_a_huge_size_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "huge.png"), make_image(40, 30))
    content = bytearray((tmp_path / "huge.png").read_bytes())
    content[16:24] = b"\x00\x7f\xff\xff" * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(content)
    with pytest.raises(InputError, match="more than 268 million pixels"):
        read_image(tmp_path / "huge.png")


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), make_image(40, 40))
    with pytest.raises(DataError, match="0 images to train on and 1 to validate"):
        split_samples(find_samples(tmp_path), DataConfig())
    root = write_gopro(tmp_path / "tree", sequences={"test/A": 2})
    with pytest.raises(DataError, match="0 images to train on and 2"):
        split_samples(find_samples(root), DataConfig(validation="test"))


def test_whole_images_of_several_sizes_are_refused(tmp_path: Path) -> None:
    root = write_gopro(tmp_path / "tree", sequences={"A": 1})
    write_gopro(root, sequences={"B": 1}, size=(80, 96))
    check_images(find_samples(root).train, DataConfig(view="resize"), where=str(root))
    with pytest.raises(DataError, match="2 different sizes"):
        check_images(find_samples(root).train, DataConfig(view="whole"), where=str(root))


def test_fingerprint_changes_with_the_images(tmp_path: Path) -> None:
    root = write_gopro(tmp_path, sequences={"A": 2})
    before = compute_fingerprint([(root, find_samples(root).train)])
    assert compute_fingerprint([(root, find_samples(root).train)]) == before
    cv2.imwrite(str(root / "A" / "sharp" / "000000.png"), scene(96, 80, seed=9))
    assert compute_fingerprint([(root, find_samples(root).train)]) != before
    assert compute_fingerprint([(root, find_samples(root).train)] * 2) != compute_fingerprint(
        [(root, find_samples(root).train)]
    )


@given(seed=st.integers(0, 2**32), flips=st.booleans(), turns=st.booleans(), angle=st.floats(0, 45))
def test_both_images_of_a_pair_undergo_the_same_changes(seed: int, flips: bool, turns: bool, angle: float) -> None:
    config = DataConfig(flips=flips, quarter_turns=turns, rotation_deg=angle)
    change = Augmentation.draw(config, np.random.default_rng(seed))
    whole = np.random.default_rng(0).integers(0, 256, (24, 24, 4), dtype=np.uint8)
    separate = np.concatenate((change(whole[..., :3]), change(whole[..., 1:])), axis=2)
    assert separate.shape == (24, 24, 6)
    # Two of the channels are in both: they must have gone the same way.
    assert np.array_equal(separate[..., 1:3], separate[..., 3:5])
    if not (flips or turns or angle):
        assert np.array_equal(change(whole), whole)


def test_every_symmetry_of_the_square_is_drawn_and_angles_stay_within_their_limit() -> None:
    config = DataConfig(flips=True, quarter_turns=True)
    rng, square = np.random.default_rng(0), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert len({Augmentation.draw(config, rng)(square).tobytes() for _ in range(200)}) == 8
    angles = [Augmentation.draw(DataConfig(rotation_deg=10.0), rng).angle_deg for _ in range(200)]
    assert -10 <= min(angles) < -5 < 5 < max(angles) <= 10


@pytest.mark.parametrize("view", ["resize", "crop", "whole"])
@pytest.mark.parametrize("kind", ["pairs", "sharp"])
def test_pairs_depend_on_seed_epoch_and_row_alone(
    view: str, kind: str, gopro: Path, photos: Path, tmp_path: Path
) -> None:
    config = DataConfig(view=view, size_px=(48, 48), crops=16, flips=True, rotation_deg=10.0)
    samples = find_samples(gopro if kind == "pairs" else photos).train
    first, second, other = (
        open_dataset([samples], config, seed=seed, augment=True, cache=tmp_path / name, key=kind)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    pair, again, different, later = first[0, 2], second[0, 2], other[0, 2], first[1, 2]
    size = {"whole": (80, 96) if kind == "pairs" else (80, 120)}.get(view, (48, 48))
    assert pair[0].shape == pair[1].shape == (*size, 3)
    assert np.array_equal(pair, again)
    assert not np.array_equal(pair, different)
    assert not np.array_equal(pair, later)
    assert np.abs(pair[0].astype(int) - pair[1]).mean() > 0.5  # blurred is not sharp


def test_validation_images_are_the_same_at_every_epoch(photos: Path) -> None:
    config = DataConfig(view="resize", size_px=(64, 48), flips=True, rotation_deg=10.0)
    held_out = ImageDataset(find_samples(photos).train, config, seed=0, augment=False)
    assert np.array_equal(held_out[0, 1], held_out[7, 1])


def test_links_to_folders_are_followed_and_loops_end(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "photos").symlink_to(photos)
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "data")
    found, linked = find_samples(photos), find_samples(tmp_path / "data")
    assert [sample.sharp.name for sample in linked.train] == [sample.sharp.name for sample in found.train]


def test_images_that_are_no_pair_are_listed_for_all_folders(tmp_path: Path) -> None:
    for folder, names in (
        ("a/blur", ["1.png"]),
        ("a/sharp", ["2.png"]),
        ("b/blur", ["1.png"]),
        ("b/sharp", ["1.jpg", "1.png"]),
    ):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).touch()
    with pytest.raises(DataError, match="3 problems") as caught:
        find_samples(tmp_path)
    assert "its name differs by the suffix alone: b/sharp/1.jpg" in str(caught.value)


def test_other_crops_are_made_for_other_images_of_the_same_data(photos: Path, tmp_path: Path) -> None:
    """Images that are held out must not be among the crops of a run that held out others."""
    config, samples = DataConfig(size_px=(32, 32), crops=8), find_samples(photos).train
    options = {"seed": 0, "augment": False, "cache": tmp_path, "key": "k"}
    for part in (samples, samples[1:]):
        open_dataset([part], config, **options)
    assert len(list(tmp_path.iterdir())) == 2


def test_crops_that_do_not_fit_leave_the_disk_as_it_was(photos: Path, tmp_path: Path) -> None:
    config, samples = DataConfig(size_px=(32, 32), crops=10**9), find_samples(photos).train
    with pytest.raises(OutputError, match="No space left on device"):
        open_dataset([samples], config, seed=0, augment=True, cache=tmp_path, key="k")
    assert list(tmp_path.iterdir()) == []


def test_crops_are_made_once(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, samples = DataConfig(size_px=(32, 32), crops=20), find_samples(photos).train
    made = [open_dataset([samples], config, seed=0, augment=True, cache=tmp_path, key="k") for _ in range(2)]
    assert capsys.readouterr().out == "making 20 crops of 32x32 pixels, which take 0 MB\n"
    assert len(made[0]) == 20
    assert len(list(tmp_path.iterdir())) == 1
    assert np.array_equal(made[0].sharp, made[1].sharp)
    assert made[0].sharp.std(axis=(1, 2, 3)).min() > 0


def test_augmentation_on_a_device_equals_that_of_the_cpu(photos: Path, tmp_path: Path) -> None:
    config = DataConfig(size_px=(32, 32), crops=64, flips=True, quarter_turns=True)
    crops = open_dataset([find_samples(photos).train], config, seed=0, augment=True, cache=tmp_path, key="")
    keys = list(iterate_training_keys(64, batch=16, seed=0, start=0, stop=8))
    batches = list(DeviceCrops(crops, torch.device("cpu")).iterate_batches(keys))
    for batch, rows in zip(batches, keys, strict=True):
        for part in (0, 1):
            assert np.array_equal(batch[part].numpy(), np.stack([crops[key][part] for key in rows]))
    assert {crops.draw_augmentation(key).quarter_turns for rows in keys for key in rows} == {0, 1, 2, 3}


def test_squares_of_a_batch_are_all_cut_once() -> None:
    images = torch.arange(2 * 12 * 12 * 3).reshape(2, 12, 12, 3)
    squares = cut_squares(images, 4)
    assert squares.shape == (18, 4, 4, 3)
    assert torch.equal(squares[9 + 3 * 2 + 1], images[1, 8:12, 4:8])
    assert len(squares.unique()) == images.numel()


def test_folders_give_crops_in_proportion_to_their_shares(gopro: Path, photos: Path) -> None:
    groups = [find_samples(gopro).train, find_samples(photos).train]
    alike, weighted = (interleave_samples(groups, shares, count=40, seed=0) for shares in ((), (3.0, 1.0)))
    assert [sum(sample.blurred is None for sample in taken) for taken in (alike, weighted)] == [20, 10]
    assert Counter(sample.sharp.name for sample in alike if sample.blurred is None) == dict.fromkeys(
        (f"{seed}.png" for seed in range(4)), 5
    )
    assert interleave_samples(groups, (), count=40, seed=1) != alike


def test_every_epoch_takes_each_sample_once_in_another_order() -> None:
    keys = list(iterate_training_keys(10, batch=5, seed=0, start=0, stop=4))
    epochs = [list(itertools.chain(*keys[:2])), list(itertools.chain(*keys[2:]))]
    assert [sorted(row for _, row in epoch) for epoch in epochs] == [list(range(10))] * 2
    assert [row for _, row in epochs[0]] != [row for _, row in epochs[1]]
    assert {epoch for epoch, _ in epochs[1]} == {1}
    assert list(iterate_training_keys(10, batch=5, seed=0, start=3, stop=4)) == keys[3:]


def test_all_processes_together_take_the_samples_of_one() -> None:
    alone = list(iterate_training_keys(11, batch=4, seed=0, start=0, stop=5))
    shares = [list(iterate_training_keys(11, batch=2, seed=0, start=0, stop=5, rank=rank, ranks=2)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*shares, strict=True)] == alone
    held_out = [list_validation_keys(7, batch=2, rank=rank, ranks=2) for rank in (0, 1)]
    assert sorted(itertools.chain(*itertools.chain(*held_out))) == [(0, row) for row in range(7)]


def test_fewer_images_than_a_batch_are_repeated() -> None:
    (keys,) = iterate_training_keys(3, batch=8, seed=0, start=0, stop=1)
    assert len(keys) == 8
    assert {row for _, row in keys} == {0, 1, 2}


def test_gray_alpha_and_16_bit_images_are_read_as_8_bit_bgr(tmp_path: Path) -> None:
    for name, array in {
        "gray": np.full((4, 5), 7, np.uint8),
        "alpha": np.full((4, 5, 4), 7, np.uint8),
        "deep": np.full((4, 5, 3), 7 * 257, np.uint16),
    }.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), array)
        decoded = read_image(tmp_path / f"{name}.png")
        assert (decoded.shape, decoded.dtype, decoded.max()) == ((4, 5, 3), np.uint8, 7)
