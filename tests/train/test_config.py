"""Recipes are complete, overrides are checked, and learning rates follow the schedule."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from train.config import DataConfig, LossConfig, Recipe, apply_overrides
from train.data.blur import BlurConfig
from train.recipes import RECIPES
from train.training.lr_schedule import LearningRateSchedule


def rates(recipe: Recipe, losses: list[float]) -> list[float]:
    """Return the learning rate of each epoch of ten steps, for the given validation losses."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=recipe.learning_rate)
    schedule, used = LearningRateSchedule(recipe, optimizer, steps=10 * len(losses)), []
    for loss in losses:
        used.append(optimizer.param_groups[0]["lr"])
        for _ in range(10):
            optimizer.step()
            schedule.after_step()
        schedule.after_epoch(loss)
    return used


def test_two_stage_rates_halve_on_a_plateau_and_fall_to_a_tenth_each_thirty_epochs() -> None:
    recipe = RECIPES["two_stage"]
    flat = rates(recipe, [1.0] * 14)
    assert flat == pytest.approx([5e-4] * 7 + [2.5e-4] * 6 + [1.25e-4])  # the seventh epoch is the sixth bad one
    falling = rates(recipe, [1 / (epoch + 1) for epoch in range(61)])
    assert falling == pytest.approx([5e-4] * 30 + [5e-5] * 30 + [5e-6])


def test_cosine_rates_warm_up_and_end_at_zero() -> None:
    recipe = dataclasses.replace(RECIPES["edge-s"], warmup_steps=10, learning_rate=1.0)
    used = rates(recipe, [1.0] * 11)
    assert used[0] == pytest.approx(0.1)
    assert used[1] == pytest.approx(1.0, abs=1e-3)
    assert used[6] == pytest.approx(0.5, abs=0.03)
    assert used[10] < 0.03


def test_cyclic_rates_rise_and_fall_between_their_bounds() -> None:
    overrides = ["schedule=cyclic", "warmup_steps=0", "cycle_steps=40", "cycle_low=0.2", "learning_rate=1.0"]
    recipe = apply_overrides(RECIPES["edge-s"], overrides)
    assert rates(recipe, [1.0] * 9) == pytest.approx([0.2, 0.6, 1.0, 0.6, 0.2, 0.6, 1.0, 0.6, 0.2])


def test_recipes_are_complete_and_come_back_from_json() -> None:
    for name, recipe in RECIPES.items():
        assert Recipe.from_json(recipe.to_json()) == recipe, name
    two_stage = RECIPES["two_stage"]
    assert (two_stage.losses.mse, two_stage.losses.ssim, two_stage.losses.adversarial) == (1.0, 0.3, 0.01)
    assert (two_stage.batch, two_stage.epochs, two_stage.data.size_px) == (4, 100, (800, 450))
    assert (RECIPES["deblurgan_v2"].batch, RECIPES["deblurgan_v2"].data.validation) == (8, "test")


def test_progressive_sides() -> None:
    recipe = apply_overrides(RECIPES["edge-s"], ["data.size_px=(96, 96)", "data.progressive=((0.25, 32), (0.5, 48))"])
    assert [recipe.data.side_at(share) for share in (0.0, 0.24, 0.25, 0.49, 0.5, 1.0)] == [32, 32, 48, 48, 96, 96]
    assert recipe.data.smallest_px == 32
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.progressive=((0.5, 64), (0.25, 32))"], "shares between 0 and 1 that rise"),
        (["data.progressive=((1.0, 64),)"], "shares between 0 and 1"),
        (["data.progressive=((0.5, 48),)"], "must divide size_px"),
        (["data.progressive=((0.5, 8),)"], "at least 11"),
        (["data.progressive=((0.5, '64'),)"], "progressive must be"),
        (["data.view=resize", "data.quarter_turns=False", "data.progressive=((0.5, 64),)"], "need square crops"),
    ],
)
def test_progressive_sides_that_are_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        apply_overrides(RECIPES["edge-s"], overrides)


def test_overrides_reach_every_level() -> None:
    recipe = apply_overrides(
        RECIPES["deblurgan_v2"],
        ["data.blur.length_px=(1, 5)", "losses.l1=2", "batch=2", "options.pretrained=None", "options.width=16"],
    )
    assert (recipe.data.blur.length_px, recipe.losses.l1, recipe.batch) == ((1, 5), 2, 2)
    assert recipe.options == {"pretrained": None, "width": 16}
    assert recipe.losses.multi_scale_l1 == 1.0


def test_a_run_without_a_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one loss"):
        apply_overrides(RECIPES["swin_mse"], ["losses.mse=0"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("batch=2.5", "batch must be int, got 2.5"),
        ("batch=True", "batch must be int"),
        ("batch", "--set batch: no value, as in batch=4"),
        ("nonsense=1", "known: generator, options"),
        ("losses.nonsense=1", "--set losses.nonsense=1: unknown setting losses.nonsense"),
        ("losses.nonsense=1", "known: losses.mse, losses.l1"),
        ("data.blur.nonsense=1", "--set data.blur.nonsense=1: unknown setting data.blur.nonsense"),
        ("data.size.nonsense=8", "--set data.size.nonsense=8: unknown setting data.size;"),
        ("data.crops.nonsense=8", "--set data.crops.nonsense=8: data.crops has no parts"),
        ("learning_rate=1e999", "learning_rate must be in range, got inf"),
        ("learning_rate=1e300", r"learning_rate must be in range, got 1e\+300"),
        ("batch=99999999999999999999", "batch must be in range"),
        ("data.blur.noise_sigma=-1.0", "noise_sigma must not be negative"),
        ("data.blur.roll_deg=-1.0", "roll_deg must not be negative"),
        ("data.blur.jpeg_quality=(300,500)", r"jpeg_quality must be \(low, high\)"),
        ("data.rotation_deg=-1.0", "rotation_deg must not be negative"),
        ("data.crops=9999999999999", "crops must be from 1 to 1000000000, got 9999999999999"),
        ("losses.mse=-1", "must not be negative"),
        ("losses.mse='much'", "mse must be float"),
        ("precision=fp64", "precision must be auto or fp32 or bf16 or fp16, got 'fp64'"),
        ("data.size_px=32", r"size_px must be \(int, int\), got 32"),
        ("data.size_px=(32, 48)", "crops are square"),
        ("data.size_px=(8, 8)", "size_px must be at least 11"),
        ("data.view=resize", "quarter_turns need square crops"),
        ("data.validation_share=1.5", "between 0 and 1"),
        ("data.blur.jpeg_share=2", "from 0 to 1"),
        ("learning_rate=-1", "must not be negative"),
        ("ema_decay=1.0", "below 1"),
        ("schedule=plateau", "warmup_steps do not go"),
        ("tenth_every_epochs=3", "does not go with the cosine"),
        ("schedule=cyclic", "warmup_steps do not go with the cyclic schedule"),
        ("cycle_steps=1", "cycle_steps must be at least 2"),
        ("cycle_low=1.0", "cycle_low must be at least 0 and below 1"),
        ("batch.size=4", "batch has no parts"),
        ("image_steps=-1", "image_steps must not be negative"),
        ("max_steps=0", "max_steps must be at least 1"),
        ("losses.adversarial=-0.1", "must not be negative"),
        ("data.shares=(1.0, 0.0)", "shares must be positive"),
        ("data.shares=(1.0, 'x')", r"shares must be \(float, \.\.\.\)"),
    ],
)
def test_wrong_settings_are_refused(override: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        apply_overrides(RECIPES["edge-s"], [override])


def test_wgan_gp_refuses_batch_normalisation() -> None:
    with pytest.raises(ValueError, match="normalisation=instance"):
        apply_overrides(RECIPES["two_stage"], ["losses.adversarial_kind=wgan_gp"])
    assert LossConfig(l1=1.0).adversarial == 0
    assert DataConfig(blur=BlurConfig(jpeg_share=0)).blur.jpeg_share == 0
