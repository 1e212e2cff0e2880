"""One step of each recipe against a plain loop of a few lines."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.functional.image import structural_similarity_index_measure

from runtime.errors import UsageError
from train.config import LossConfig, Recipe
from train.models import create_generator
from train.models.base import patches_from_pixels
from train.recipes import RECIPES
from train.training.adversary import create_discriminator
from train.training.losses import ContentLoss, harm
from train.training.step import Step, choose_precision

REDUCED = {
    "deblurgan_v2": {"size": "18", "width": 8},
    "edge-s": {"widths": (8, 16), "blocks": (1, 1), "half_pass": True},
    "swin_mse": {"size": "tiny", "width": 32},
    "two_stage": {},
}
SIZE = {"swin_mse": 224}


def networks(recipe: Recipe) -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    made = {"generator": create_generator(recipe.generator, **recipe.options)}
    if recipe.losses.adversarial:
        made["discriminator"] = create_discriminator(recipe)
    return made


def optimizers(recipe: Recipe, made: dict[str, torch.nn.Module]) -> dict[str, torch.optim.Optimizer]:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    settings = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    return {name: kind(network.parameters(), **settings) for name, network in made.items()}


def step_for(recipe: Recipe, made: dict[str, torch.nn.Module]) -> Step:
    return Step(
        recipe,
        networks=made,
        optimizers=optimizers(recipe, made),
        content_loss=ContentLoss(recipe.losses),
        bare_generator=made["generator"],
    )


def plain_step(
    name: str,
    made: dict[str, torch.nn.Module],
    optimizer: dict[str, torch.optim.Optimizer],
    clip: float,
    blurred: torch.Tensor,
    sharp: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Take the step of the papers without code of train/training; return the losses of both networks."""
    generator, discriminator = made["generator"], made.get("discriminator")
    if name == "two_stage":
        fake = generator(2 * blurred - 1)
        real, restored = 2 * sharp - 1, (fake + 1) / 2
        content = F.mse_loss(restored, sharp)
        content = content + 0.3 * (1 - structural_similarity_index_measure(restored, sharp, data_range=1.0))
        cross_entropy = F.binary_cross_entropy
    else:
        with torch.autocast("cpu", torch.bfloat16, enabled=name.startswith("edge")):
            fake = generator(blurred)
        fake = restored = fake.float()
        real, cross_entropy = sharp, F.binary_cross_entropy_with_logits
        difference = restored - sharp
        content = (difference**2).mean() if name == "swin_mse" else difference.abs().mean()
        if name.startswith("edge"):
            spectrum = torch.fft.fft2(restored - sharp, norm="ortho")
            content = ((restored - sharp) ** 2 + 1e-6).sqrt().mean()
            content = content + 0.1 * (spectrum.real.abs().mean() + spectrum.imag.abs().mean()) / 2
        if name == "deblurgan_v2":
            for size in (32, 16):
                small = [F.interpolate(x, size=(size, size), mode="bilinear") for x in (restored, sharp)]
                content = content + (small[0] - small[1]).abs().mean()
    if discriminator is None:
        content.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(generator.parameters(), clip)
        optimizer["generator"].step()
        return content, None
    (output_real,), (output_fake,) = discriminator(real), discriminator(fake.detach())
    loss_d = cross_entropy(output_real, torch.ones_like(output_real))
    loss_d = 0.5 * (loss_d + cross_entropy(output_fake, torch.zeros_like(output_fake)))
    loss_d.backward()
    optimizer["discriminator"].step()
    (output,) = discriminator(fake)
    loss_g = content + 0.01 * cross_entropy(output, torch.ones_like(output))
    loss_g.backward()
    optimizer["generator"].step()
    return loss_g, loss_d


@pytest.mark.parametrize("name", REDUCED)  # edge-m and edge-l differ from edge-s in their size alone
def test_a_step_equals_that_of_a_plain_loop(name: str) -> None:
    precision = "bf16" if name.startswith("edge") else "fp32"
    recipe = dataclasses.replace(RECIPES[name], options=REDUCED[name], precision=precision)
    ours, theirs = networks(recipe), networks(recipe)
    size = SIZE.get(name, 64)
    blurred, sharp = torch.rand(2, 2, 3, size, size, generator=torch.Generator().manual_seed(1)).unbind(0)
    step = step_for(recipe, ours)
    torch.manual_seed(5)
    restored, losses = step(blurred, sharp)
    torch.manual_seed(5)
    plain = optimizers(recipe, theirs)
    loss_g, loss_d = plain_step(name, theirs, plain, recipe.gradient_clip, blurred, sharp)
    assert losses["generator_loss"].item() == pytest.approx(loss_g.item(), rel=1e-5)
    if loss_d is not None:
        assert losses["discriminator_loss"].item() == pytest.approx(loss_d.item(), rel=1e-5)
    assert restored.shape == sharp.shape
    assert step.skipped == 0
    limit = 3e-3 if name == "two_stage" else 1e-4  # with one thread, sums of the first have another order: 1e-3
    for key, network in ours.items():
        pairs = list(zip(network.parameters(), theirs[key].parameters(), strict=True))
        # After one step, Adam's first moment is a tenth of the gradient, whose size the weights do not show.
        gradients = [(step.optimizers[key].state[x]["exp_avg"], plain[key].state[y]["exp_avg"]) for x, y in pairs]
        largest = max(expected.abs().max() for _, expected in gradients)
        for gradient, expected in gradients:
            assert (gradient - expected).abs().max() < limit * largest
        for weight, expected in pairs:
            assert (weight - expected).abs().mean() < 0.05 * recipe.learning_rate
        for value, expected in zip(network.buffers(), theirs[key].buffers(), strict=True):
            assert torch.allclose(value, expected, atol=1e-3)
    assert set(losses) >= {"generator_loss", "content_loss"}


@pytest.mark.parametrize("kind", ["bce", "bce_logits", "wgan_gp"])
def test_discriminator_learns_to_separate_sharp_from_blurred(kind: str) -> None:
    """With a fixed generator, every kind of adversarial loss trains the discriminator."""
    losses = LossConfig(mse=1.0, adversarial=0.01, adversarial_kind=kind)
    recipe = dataclasses.replace(
        RECIPES["two_stage"], generator="edge", options=REDUCED["edge-s"], losses=losses, normalisation="instance"
    )
    made = networks(recipe)
    step = step_for(recipe, made)
    step.optimizers["generator"].param_groups[0]["lr"] = 0.0
    rng = torch.Generator().manual_seed(0)

    def margin() -> float:
        with torch.no_grad():
            real, fake = (made["discriminator"](x)[0].mean().item() for x in (sharp, made["generator"](blurred)))
        return real - fake

    sharp = torch.rand(4, 3, 64, 64, generator=rng)
    blurred = F.avg_pool2d(sharp, 5, stride=1, padding=2)
    before = margin()
    history = [step(blurred, sharp)[1] for _ in range(12)]
    assert margin() > before + 0.2
    assert all(loss.isfinite() for losses in history for loss in losses.values())


def test_the_update_of_the_generator_does_not_change_the_discriminator() -> None:
    recipe = RECIPES["two_stage"]
    made = networks(recipe)
    step = step_for(recipe, made)
    step.optimizers["discriminator"].param_groups[0].update(lr=0.0, weight_decay=0.0)
    before = {name: weight.clone() for name, weight in made["discriminator"].named_parameters()}
    step(torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64))
    assert all(torch.equal(weight, before[name]) for name, weight in made["discriminator"].named_parameters())
    assert all(weight.requires_grad for weight in made["discriminator"].parameters())


def test_a_gradient_that_is_not_finite_is_skipped() -> None:
    recipe = dataclasses.replace(RECIPES["edge-s"], options=REDUCED["edge-s"])
    made = networks(recipe)
    step = step_for(recipe, made)
    before = {name: value.clone() for name, value in made["generator"].state_dict().items()}
    broken = torch.full((1, 3, 64, 64), float("nan"))
    step(broken, torch.rand(1, 3, 64, 64))
    step(broken, torch.rand(1, 3, 64, 64))
    assert step.skipped == 2
    assert all(torch.equal(value, before[name]) for name, value in made["generator"].state_dict().items())
    step(torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64))
    assert step.skipped == 0
    assert not torch.equal(made["generator"].tail.weight, before["tail.weight"])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_in_reduced_precision_works(precision: str) -> None:
    recipe = dataclasses.replace(
        RECIPES["two_stage"], generator="edge", options=REDUCED["edge-s"], precision=precision, learning_rate=3e-3
    )
    made = networks(recipe)
    step = step_for(recipe, made)
    sharp = F.interpolate(torch.rand(1, 3, 8, 8), size=(64, 64), mode="bicubic").clamp(0, 1)
    blurred = F.avg_pool2d(sharp, 9, stride=1, padding=4)
    history = [step(blurred, sharp)[1]["content_loss"].item() for _ in range(10)]
    assert step.skipped == 0
    assert history[-1] < 0.8 * history[0]
    assert all(weight.dtype == torch.float32 for weight in made["generator"].parameters())


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx2": True, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": True}, "bf16"),
        ({"bf16": True}, "bf16"),
        ({}, "fp32"),
    ],
)
def test_auto_is_bfloat16_on_cpus_that_are_faster_in_it(
    capabilities: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("cpu", "auto") == precision
    assert choose_precision("cpu", "fp16") == "fp16"


def test_the_output_of_a_teacher_with_other_channel_order_and_range_is_compared_correctly() -> None:
    """The generator uses BGR in [0, 1], the teacher RGB in [-1, 1]; the loss compares the same colours."""
    torch.manual_seed(0)
    recipe = RECIPES["edge-s"]
    student, teacher = create_generator("edge", widths=(8,), blocks=(1,)), create_generator("two_stage_cnn").eval()
    step = Step(
        dataclasses.replace(recipe, losses=LossConfig(l1=1.0, distillation=0.5), precision="fp32"),
        networks={"generator": student},
        optimizers=optimizers(recipe, {"generator": student}),
        content_loss=ContentLoss(LossConfig(l1=1.0)),
        bare_generator=student,
        teacher=teacher,
    )
    frames, reference = (torch.randint(0, 256, (2, 16, 24, 3), dtype=torch.uint8) for _ in range(2))
    blurred, sharp = (frames.permute(0, 3, 1, 2).float() / 255 for frames in (frames, reference))
    with torch.no_grad():
        rgb = teacher(blurred.flip(1) * 2 - 1)
        taught = ((rgb + 1) / 2).flip(1).clamp(0, 1)
        restored = student(blurred)
    _, losses = step(blurred, sharp)
    assert losses["distillation_loss"] == pytest.approx(F.l1_loss(restored, taught).item(), rel=1e-5)
    expected = F.l1_loss(restored, sharp) + 0.5 * F.l1_loss(restored, taught)
    assert losses["generator_loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_harm_joins_the_losses_of_the_generator() -> None:
    torch.manual_seed(0)
    recipe = dataclasses.replace(RECIPES["edge-s"], losses=LossConfig(l1=1.0, harm=3.0), precision="fp32")
    generator = create_generator("edge", widths=(8,), blocks=(1,))
    with torch.no_grad():
        generator.tail.weight.mul_(30)  # the image changes enough to lose
    blurred, sharp = (torch.rand(2, 3, 64, 64) for _ in range(2))
    sharp = 0.9 * blurred + 0.1 * sharp
    with torch.no_grad():
        restored = generator(blurred)
    _, losses = step_for(recipe, {"generator": generator})(blurred, sharp)
    assert losses["harm_loss"] == pytest.approx(harm(restored, blurred, sharp).item(), rel=1e-4) != 0
    expected = F.l1_loss(restored, sharp) + 3 * losses["harm_loss"]
    assert losses["generator_loss"] == pytest.approx(expected.item(), rel=1e-4)
    with pytest.raises(ValueError, match="harm needs another loss beside it"):
        LossConfig(harm=1.0)


def features_step(student: torch.nn.Module, teacher: torch.nn.Module) -> Step:
    losses = LossConfig(l1=1.0, distillation=0.0, feature_distillation=0.5)
    return Step(
        dataclasses.replace(RECIPES["edge-s"], losses=losses, precision="fp32"),
        networks={"generator": student},
        optimizers=optimizers(RECIPES["edge-s"], {"generator": student}),
        content_loss=ContentLoss(losses),
        bare_generator=student,
        teacher=teacher,
    )


def test_attention_maps_of_a_wider_teacher_are_learned() -> None:
    torch.manual_seed(0)
    student, teacher = (create_generator("edge", widths=(width,), blocks=(1,)) for width in (8, 12))
    teacher.eval().requires_grad_(False)
    step = features_step(student, teacher)
    blurred, sharp = torch.rand(2, 2, 3, 16, 24).unbind(0)
    with torch.no_grad():
        features = [network.body(network.head(patches_from_pixels(blurred, 4))) for network in (student, teacher)]
        maps = [each.square().mean(1) for each in features]
        unit = [each / each.square().sum((1, 2), keepdim=True).sqrt() for each in maps]
        distance = (unit[0] - unit[1]).square().sum((1, 2)).mean()
        content = F.l1_loss(student(blurred), sharp)
    _, losses = step(blurred, sharp)
    assert losses["feature_loss"] == pytest.approx(distance.item(), rel=1e-4)
    assert losses["generator_loss"] == pytest.approx((content + 0.5 * distance).item(), rel=1e-4)
    before = losses["feature_loss"]
    for _ in range(20):
        _, losses = step(blurred, sharp)
    assert losses["feature_loss"] < before


def test_features_of_a_network_without_a_feature_layer_are_refused() -> None:
    student, teacher = create_generator("edge", widths=(8,), blocks=(1,)), create_generator("two_stage_cnn")
    with pytest.raises(UsageError, match="features of TwoStageCnn cannot be compared"):
        features_step(student, teacher)
