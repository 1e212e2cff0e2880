"""Validation on whole images, and within an epoch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from runtime.metrics import GRID_MIN_PX, grid_codes
from tests.train.conftest import lpips_file, scene
from tests.train.test_training import same_state, small, train_and_die, weights
from train.checkpoint import load_generator
from train.data.datasets import ImageDataset
from train.models import create_generator, nchw_from_frames, restore_frames, restore_nchw
from train.training.distributed import Ranks
from train.training.loop import train
from train.training.losses import ContentLoss
from train.training.lpips import Lpips
from train.training.run_log import read_log
from train.training.step import Step
from train.training.validation import ValidationScores, validate

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photographs of four sizes."""
    folder = tmp_path_factory.mktemp("sizes")
    for seed in range(8):
        cv2.imwrite(str(folder / f"{seed}.png"), scene(120 + 10 * (seed % 4), 110 + 4 * (seed % 4), seed=seed))
    return folder


def test_training_on_crops_is_validated_on_whole_images(sizes: Path, tmp_path: Path) -> None:
    recipe = small("data.validation_share=0.5", "data.validation_frames=3", "epochs=1", "image_steps=1", "ema_decay=0")
    train(recipe, data=[sizes], run=tmp_path)
    (entry,) = read_log(tmp_path)
    assert not list((tmp_path / "crops").glob("*.part"))
    assert len(list((tmp_path / "crops").iterdir())) == 1  # those of training
    generator, _ = load_generator(tmp_path)
    held_out = [sizes / f"{row}.png" for row in (0, 4, 7)]  # of the rows 0, 2, 4, 7, evenly spread
    from train.data.index import Sample

    dataset = ImageDataset(
        [Sample(path, None, ".") for path in held_out],
        dataclasses.replace(recipe.data, view="whole", quarter_turns=False),
        seed=recipe.seed + 1,
        augment=False,
    )
    pairs = [dataset[0, row] for row in range(3)]
    assert [pair[0].shape[:2] != (32, 32) for pair in pairs] == [True] * 3
    batches = [[torch.from_numpy(image.copy())[None] for image in pair] for pair in pairs]
    scores = validate(
        generator,
        batches,
        content_loss=ContentLoss(recipe.losses),
        ranks=ALONE,
        autocast=lambda batch: torch.autocast("cpu", enabled=False),
    )
    assert scores.blurred_psnr_db == pytest.approx(entry["validation/blurred_psnr_db"], abs=1e-6)
    assert scores.psnr_db == pytest.approx(entry["validation/psnr_db"], abs=0.02)  # trained in bfloat16 where it can be


def test_validation_computes_in_the_precision_of_training() -> None:
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(8,), blocks=(1,))
    frames = torch.from_numpy(np.stack([scene(48, 32, seed=seed) for seed in range(2)]))
    seen = []
    generator.tail.register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    for is_enabled in (False, True):
        validate(
            generator,
            [(frames, frames)],
            content_loss=ContentLoss(small().losses),
            ranks=ALONE,
            autocast=lambda batch, on=is_enabled: torch.autocast("cpu", torch.bfloat16, enabled=on),
        )
    assert seen == [torch.float32, torch.bfloat16]
    assert generator.training
    blurred = nchw_from_frames(frames, generator)
    assert restore_nchw(generator, blurred, generator).dtype == torch.float32


@pytest.mark.parametrize("side_px", [96, 48])
def test_the_grid_is_measured_beside_lpips_on_images_that_are_large_enough(side_px: int, tmp_path: Path) -> None:
    generator = create_generator("edge", widths=(8,), blocks=(1,))
    torch.nn.init.zeros_(generator.tail.weight)
    torch.nn.init.zeros_(generator.tail.bias)
    generator.tail.bias.data[0] = 0.2  # one value of each patch is brighter
    lpips_file(tmp_path / "lpips.safetensors")
    lpips = Lpips(tmp_path / "lpips.safetensors", channel_order="BGR")
    frames = torch.from_numpy(np.stack([scene(side_px, side_px, seed=seed) // 2 for seed in range(2)]))
    scores = validate(
        generator,
        [(frames[:1], frames[:1]), (frames[1:], frames[1:])],
        content_loss=ContentLoss(small().losses, lpips=lpips),
        ranks=ALONE,
        autocast=lambda batch: torch.autocast("cpu", enabled=False),
    )
    assert scores.lpips > 0
    if side_px < GRID_MIN_PX:
        assert scores.grid_codes is None
    else:
        grids = [grid_codes(frame.numpy()) for frame in restore_frames(generator, frames)]
        assert scores.grid_codes == pytest.approx(np.mean(grids), abs=1e-4)
        assert scores.grid_codes > 0.5 + np.mean([grid_codes(frame.numpy()) for frame in frames])


def test_validations_within_an_epoch_are_logged_and_change_no_weights(photos: Path, tmp_path: Path) -> None:
    often = small("batch=2", "epochs=2", "validation_steps=4")
    train(often, data=[photos], run=tmp_path / "often")
    train(dataclasses.replace(often, validation_steps=0), data=[photos], run=tmp_path / "plain")
    logs = {name: read_log(tmp_path / name) for name in ("often", "plain")}
    assert [(line["epoch"], line["step"]) for line in logs["often"]] == [(0.6667, 4), (1, 6), (1.3333, 8), (2, 12)]
    at_end = [line for line in logs["often"] if line["epoch"] == int(line["epoch"])]
    for line in (*at_end, *logs["plain"]):
        line.pop("images_per_second")
        line.pop("is_published")
    assert at_end == logs["plain"]
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True)["generator"] for name in logs]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    train_and_die(often, data=[photos], run=tmp_path / "broken", in_step=10)
    train(often, data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "often", tmp_path / "broken")
    assert [line["step"] for line in read_log(tmp_path / "broken")] == [4, 6, 8, 12]


def test_the_best_validation_within_an_epoch_is_published(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([4.0, 1.0, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(
        "train.training.loop.validate", lambda *a, **k: ValidationScores(next(losses), 20.0, 0.5, 19.0, 0.4)
    )
    kept: dict[int, dict[str, torch.Tensor]] = {}
    original = Step.__call__

    def call(self: Step, *images: torch.Tensor, completed: int) -> object:
        kept[completed] = {name: value.clone() for name, value in self.bare_generator.state_dict().items()}
        return original(self, *images, completed=completed)

    monkeypatch.setattr(Step, "__call__", call)
    recipe = small("batch=2", "epochs=9", "validation_steps=4", "early_stopping_epochs=2", "ema_decay=0")
    train(recipe, data=[photos], run=tmp_path)
    lines = read_log(tmp_path)
    assert [(line["step"], line["is_published"]) for line in lines if line["is_published"]] == [(4, True), (6, True)]
    published = weights(tmp_path)
    assert all(torch.equal(value, kept[6][name]) for name, value in published.items())
    # The best one is that of the end of the first epoch: the run stops after two more.
    assert lines[-1]["epoch"] == 3
