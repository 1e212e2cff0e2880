"""Discriminators, adversarial losses and their controls."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.nn import functional as F

from train.checkpoint import load_state
from train.config import LossConfig, Recipe, apply_overrides
from train.gan_config import AdversarialKind, GanConfig
from train.models import create_generator
from train.models.hierarchical_gan import GlobalGan, HierarchicalGan
from train.models.multi_scale_gan import MultiScaleGan
from train.models.patch_gan import PatchGan
from train.models.unet_gan import UnetGan
from train.recipes import RECIPES
from train.training.adversarial import (
    adversarial_factor,
    adversarial_loss,
    discriminator_loss,
    r1_penalty,
    shift_images,
)
from train.training.adversary import create_discriminator, min_discriminator_px
from train.training.loop import train
from train.training.losses import ContentLoss, grid_l1
from train.training.run_log import read_log
from train.training.step import Step

SMALL: dict[str, Any] = {"width": 4}


def recipe_with(*, kind: str = "bce_logits", weight: float = 0.01, **gan: Any) -> Recipe:
    return dataclasses.replace(
        RECIPES["edge-s"],
        options={"widths": (8,), "blocks": (1,)},
        losses=LossConfig(l1=1.0, adversarial=weight, adversarial_kind=kind),
        gan=GanConfig(**SMALL | gan),
        normalisation="none",
        precision="fp32",
        learning_rate=1e-3,
    )


def step_for(recipe: Recipe) -> Step:
    torch.manual_seed(0)
    generator, discriminator = create_generator("edge", **recipe.options), create_discriminator(recipe)
    networks = {"generator": generator, "discriminator": discriminator}
    rates = {"generator": recipe.learning_rate, "discriminator": recipe.gan.learning_rate or recipe.learning_rate}
    optimizers = {n: torch.optim.Adam(network.parameters(), lr=rates[n]) for n, network in networks.items()}
    content_loss = ContentLoss(recipe.losses)
    return Step(recipe, networks=networks, optimizers=optimizers, content_loss=content_loss, bare_generator=generator)


def pair(count: int = 2, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    coarse = torch.rand(count, 3, size // 8, size // 8, generator=torch.Generator().manual_seed(1))
    sharp = F.interpolate(coarse, scale_factor=8, mode="nearest")
    return F.avg_pool2d(sharp, 7, stride=1, padding=3, count_include_pad=False), sharp


def test_the_multi_scale_discriminator_has_a_map_for_each_size_of_the_image() -> None:
    images = torch.rand(2, 3, 128, 160)
    network = MultiScaleGan([PatchGan(sigmoid=False, normalisation="none", width=4) for _ in range(2)])
    large, small = network(images)
    assert large.shape == (2, 1, 5, 7)
    assert small.shape == (2, 1, 1, 2)
    reduced = F.avg_pool2d(images, 3, stride=2, padding=1, count_include_pad=False)
    assert torch.equal(small, network.scales[1](reduced)[0])


def test_the_hierarchical_discriminator_judges_patches_and_the_whole_image() -> None:
    torch.manual_seed(0)
    network = HierarchicalGan(*(kind(sigmoid=False, normalisation="none", width=4) for kind in (PatchGan, GlobalGan)))
    images = torch.rand(2, 3, 128, 192, requires_grad=True)
    patches, image = network(images)
    assert (patches.shape, image.shape) == ((2, 1, 5, 9), (2, 1, 1, 1))
    image.sum().backward()
    assert (images.grad.abs().sum(dim=1) > 0).float().mean() > 0.99  # it sees every pixel
    logits, features = network.compute_features(images)
    assert len(logits) == 2
    assert len(features) == 4 + 7


def test_the_unet_has_an_output_for_each_pixel_and_the_size_of_real_esrgan() -> None:
    network = UnetGan(sigmoid=False)
    assert sum(weight.numel() for weight in network.parameters()) == 4_376_897  # of UNetDiscriminatorSN(3)
    for height, width in ((40, 64), (37, 51)):
        [output] = UnetGan(sigmoid=True, width=4)(torch.rand(1, 3, height, width))
        assert output.shape == (1, 1, height, width)
        assert 0 < output.min() < output.max() < 1


def test_spectral_normalisation_divides_by_the_largest_singular_value() -> None:
    network = PatchGan(normalisation="none", width=4, spectral_norm=True)
    for _ in range(30):  # power iterations
        network(torch.rand(1, 3, 64, 64))
    for layer in network.eval().model:
        if isinstance(layer, torch.nn.Conv2d):
            assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_losses_with_squares_hinges_and_relative_outputs_are_their_formulas() -> None:
    real, fake = torch.randn(2, 1, 3, 3).double(), torch.randn(2, 1, 3, 3).double()
    expected = {
        "hinge": ((1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean(), -fake.mean()),
        "lsgan": (((real - 1) ** 2).mean() / 2 + (fake**2).mean() / 2, ((fake - 1) ** 2).mean() / 2),
    }
    over, under = real - fake.mean(), fake - real.mean()
    squares = [((a - 1) ** 2).mean() / 2 + ((b + 1) ** 2).mean() / 2 for a, b in ((over, under), (under, over))]
    expected["ragan_ls"] = (squares[0], squares[1])
    logs = [
        -(torch.sigmoid(a).log().mean() + (1 - torch.sigmoid(b)).log().mean()) / 2
        for a, b in ((over, under), (under, over))
    ]
    expected["ragan"] = (logs[0], logs[1])
    for kind, (of_discriminator, of_generator) in expected.items():
        assert discriminator_loss([real], [fake], kind).item() == pytest.approx(of_discriminator.item())
        assert adversarial_loss([fake], kind, real=[real]).item() == pytest.approx(of_generator.item())
    both = discriminator_loss([real, fake], [fake, real], "hinge")
    parts = [discriminator_loss([x], [y], "hinge") for x, y in ((real, fake), (fake, real))]
    assert both.item() == pytest.approx(sum(parts).item() / 2)  # maps count alike, whatever their sizes
    smooth = discriminator_loss([real], [fake], "lsgan", label_smoothing=0.1).item()
    assert smooth == pytest.approx((((real - 0.9) ** 2).mean() / 2 + (fake**2).mean() / 2).item())


def test_r1_of_a_linear_discriminator_is_half_of_the_squared_weight() -> None:
    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [(0.5 * x).sum(dim=(1, 2, 3), keepdim=True)]

    assert r1_penalty(Linear(), torch.rand(2, 3, 8, 8)).item() == pytest.approx(0.25 * 3 * 64 / 2, rel=1e-5)


def test_weights_of_the_adversary_rise_after_the_delay() -> None:
    gan = GanConfig(start_step=2, warmup_steps=3)
    assert [adversarial_factor(gan, step) for step in range(7)] == [None, None, 0.25, 0.5, 0.75, 1, 1]
    assert adversarial_factor(GanConfig(), 0) == 1


def test_before_the_delay_ends_there_is_no_discriminator() -> None:
    step = step_for(recipe_with(start_step=1, warmup_steps=1))
    before = [weight.clone() for weight in step.networks["discriminator"].parameters()]
    numbers = step(*pair(), completed=0)[1]
    assert set(numbers) == {"content_loss", "l1_loss", "generator_loss", "generator_gradient_norm"}
    assert all(torch.equal(*both) for both in zip(before, step.networks["discriminator"].parameters(), strict=True))
    numbers = step(*pair(), completed=1)[1]
    assert not all(torch.equal(*both) for both in zip(before, step.networks["discriminator"].parameters(), strict=True))
    expected = numbers["content_loss"] + 0.5 * 0.01 * numbers["adversarial_loss"]
    assert numbers["generator_loss"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_discriminator_takes_several_steps() -> None:
    step = step_for(recipe_with(kind="wgan_gp", steps=3, betas=(0.0, 0.9)))
    numbers = step(*pair())[1]
    counts = {
        name: {int(state["step"]) for state in optimizer.state.values()} for name, optimizer in step.optimizers.items()
    }
    # The last bias of a critic has no gradient but that of the difference, which is 0.
    assert counts == {"generator": {1}, "discriminator": {3}}
    assert numbers["penalty"] > 0


def test_shifted_pairs_move_alike_by_fractions_of_pixels() -> None:
    torch.manual_seed(3)
    ramp = torch.arange(32.0).view(1, 1, 1, 32).expand(4, 1, 32, 32)
    images = torch.cat((ramp, ramp.mT), dim=1)
    moved = shift_images(torch.cat((images, images), dim=1), 4.0)
    assert torch.equal(moved[:, :2], moved[:, 2:])
    shifts = (moved - torch.cat((images, images), dim=1))[:, :2, 8:-8, 8:-8]
    assert shifts.std(dim=(2, 3)).max() < 1e-4  # a ramp stays a ramp
    means = shifts.mean(dim=(2, 3)).flatten()
    assert means.abs().max() <= 4
    assert ((means - means.round()).abs() > 0.04).all()
    assert len(means.round(decimals=3).unique()) == 8
    assert shift_images(images, 0.0) is images


@pytest.mark.parametrize("kind", get_args(AdversarialKind))
@pytest.mark.parametrize("discriminator", ["patch_gan", "multi_scale", "hierarchical", "unet"])
def test_every_loss_trains_every_discriminator(kind: str, discriminator: str) -> None:
    extras: dict[str, Any] = {"r1": 1.0, "r1_every_steps": 2} if kind not in {"bce", "wgan_gp"} else {}
    recipe = recipe_with(
        kind=kind,
        discriminator=discriminator,
        scales=1,
        shift_px=2.0,
        feature_matching=0.1,
        spectral_norm=True,
        **extras,
    )
    step = step_for(recipe)
    before = [weight.clone() for weight in step.networks["discriminator"].parameters()]
    images = pair(size=max(64, min_discriminator_px(recipe.gan)))
    numbers = [step(*images, completed=completed)[1] for completed in range(2)]
    assert step.skipped == 0
    assert all(bool(value.isfinite()) for each in numbers for value in each.values())
    expected = {"adversarial_loss", "feature_matching_loss", "real_output", "fake_output", "discriminator_loss"}
    assert numbers[1].keys() >= expected | {"generator_gradient_norm", "discriminator_gradient_norm"}
    assert ("penalty" in numbers[0]) == (kind != "bce")
    assert ("penalty" in numbers[1]) == (kind == "wgan_gp")
    pairs = zip(before, step.networks["discriminator"].parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs if old.ndim > 1)  # in a difference, biases may cancel
    assert all(weight.requires_grad for weight in step.networks["discriminator"].parameters())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_spectral_normalisation_works_in_reduced_precision(precision: str) -> None:
    recipe = dataclasses.replace(recipe_with(kind="hinge", discriminator="unet", r1=1.0), precision=precision)
    step = step_for(recipe)
    numbers = [step(*pair(), completed=completed)[1] for completed in range(3)]
    assert step.skipped == 0
    # With fp16, the first steps only find the scale of the losses.
    assert all(bool(value.isfinite()) for value in numbers[-1].values())
    assert all(value.dtype == torch.float32 for value in step.networks["discriminator"].state_dict().values())


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"steps": 0}, "bce", "gan.steps must be at least 1"),
        ({"r1": -1.0}, "hinge", "gan.r1 must not be negative"),
        ({"betas": (0.9, 1.0)}, "bce", "gan.betas"),
        ({"label_smoothing": 0.7}, "bce", "gan.label_smoothing"),
        ({"label_smoothing": 0.1}, "hinge", "hinge has none"),
        ({"r1": 1.0}, "bce", "bce_logits"),
        ({"r1": 1.0}, "wgan_gp", "penalty of its own"),
        ({"scales": 9}, "bce", "gan.scales must be at most"),
        ({"discriminator": "vgg"}, "bce", "discriminator must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_with(kind=kind, **settings)


def test_the_smallest_image_of_a_discriminator() -> None:
    sizes = {"patch_gan": 64, "multi_scale": 128, "hierarchical": 128, "unet": 8}
    for name, expected in sizes.items():
        assert min_discriminator_px(GanConfig(discriminator=name)) == expected


def test_the_loss_of_a_grid_sees_only_what_repeats_every_four_pixels() -> None:
    sharp = torch.rand(2, 3, 64, 72, generator=torch.Generator().manual_seed(0))
    pattern = torch.zeros(4, 4)
    pattern[1, 2] = 0.16
    tiled = pattern.repeat(16, 18)
    expected = (pattern - pattern.mean()).abs().mean().item()
    assert grid_l1(sharp + tiled, sharp).item() == pytest.approx(expected, rel=1e-4)
    assert grid_l1(sharp + 0.3, sharp).item() == pytest.approx(0, abs=1e-6)
    noise = 0.1 * torch.randn(2, 3, 64, 72, generator=torch.Generator().manual_seed(1))
    assert grid_l1(sharp + noise, sharp).item() < 0.02
    assert grid_l1(sharp[..., :14, :9] + tiled[:14, :9], sharp[..., :14, :9]).item() == pytest.approx(
        expected, rel=1e-4
    )


def train_toy(count: int = 40, **gan: Any) -> tuple[float, float, dict[str, float]]:
    """Train on one batch; return the content loss at the start and at the end, and the last numbers."""
    step = step_for(recipe_with(weight=1.0, **gan))
    history = []
    for completed in range(count):
        torch.manual_seed(completed)
        history.append({name: float(value) for name, value in step(*pair(), completed=completed)[1].items()})
    contents = [numbers["content_loss"] for numbers in history]
    return sum(contents[:3]) / 3, sum(contents[-5:]) / 5, history[-1]


def test_a_discriminator_far_too_strong_destroys_the_images_and_each_control_prevents_it() -> None:
    strong: dict[str, Any] = {"learning_rate": 2e-2, "steps": 3}
    before, collapsed, numbers = train_toy(**strong)
    assert collapsed > 1.3 * before
    assert numbers["discriminator_loss"] < 1e-3
    assert numbers["adversarial_loss"] > 10
    for control in ({"r1": 10.0}, {"learning_rate": 1e-4, "steps": 1}):
        _, after, numbers = train_toy(**strong | control)
        assert after < 0.7 * collapsed, control
        assert numbers["discriminator_loss"] > 0.1, control
        assert numbers["adversarial_loss"] < 5, control


def test_a_run_with_all_controls_resumes_with_the_same_bits_and_logs_every_number(photos: Path, tmp_path: Path) -> None:
    settings = {"discriminator": "unet", "r1": 1.0, "r1_every_steps": 2, "shift_px": 2.0, "feature_matching": 0.1}
    recipe = apply_overrides(
        recipe_with(kind="ragan", start_step=2, warmup_steps=2, steps=2, **settings),
        [
            "data.size_px=(32, 32)",
            "data.crops=32",
            "batch=4",
            "epochs=1",
            "ema_decay=0.9",
            "workers=0",
            "warmup_steps=0",
            "schedule=constant",
        ],
    )
    train(recipe, data=[photos], run=tmp_path / "whole")
    train(dataclasses.replace(recipe, max_steps=3), data=[photos], run=tmp_path / "broken")
    train(recipe, data=[photos], run=tmp_path / "broken", resume=True)
    states = [load_state(tmp_path / name)[0] for name in ("whole", "broken")]
    for part in ("generator", "discriminator", "average"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    (entry,) = read_log(tmp_path / "whole")
    logged = {name.removeprefix("train/") for name in entry if name.startswith("train/")}
    losses = {"generator_loss", "content_loss", "adversarial_loss", "feature_matching_loss", "discriminator_loss"}
    outputs = {"penalty", "real_output", "fake_output", "generator_gradient_norm", "discriminator_gradient_norm"}
    assert logged >= losses | outputs | {"l1_loss"}
