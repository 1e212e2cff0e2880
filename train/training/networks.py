"""Networks of a run, with their optimizers, learning-rate schedules and the step that trains them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from runtime.errors import UsageError
from train.checkpoint import load_generator, load_half_pass, load_initial_weights
from train.config import Recipe
from train.errors import settings_checked
from train.models import Generator, create_generator
from train.training.adversary import create_discriminator
from train.training.distributed import Ranks
from train.training.losses import ContentLoss
from train.training.lpips import Lpips
from train.training.lr_schedule import LearningRateSchedule
from train.training.memory import checkpoint_activations
from train.training.step import Step

_OPTIMIZERS: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Networks:
    """All objects of a run that have weights or a state."""

    generator: Generator
    average: AveragedModel | None
    """Moving average of the generator, if the recipe has one."""
    optimizers: dict[str, torch.optim.Optimizer]
    """Optimizers by the name of their network, `generator` or `discriminator`."""
    schedules: dict[str, LearningRateSchedule]
    content_loss: ContentLoss
    step: Step
    memory_format: torch.memory_format
    parts: dict[str, Any]
    """Objects whose state a checkpoint holds, by their name in it."""

    @property
    def published(self) -> Generator:
        """Generator that is validated and published: the average, or the generator itself without one."""
        if self.average is None:
            return self.generator
        averaged: Any = self.average.module
        assert isinstance(averaged, Generator)
        return averaged


def check_networks(recipe: Recipe, *, initialize: bool) -> None:
    """Make the generator, and load all checkpoints and weights, once before the images are prepared.

    `initialize`: as for `build_networks`. Raises UsageError for options, encoders and weights of losses that cannot be
    used, and CheckpointError.
    """
    generator = _create_generator(recipe, initialize=initialize)
    if recipe.checkpoint_activations:
        checkpoint_activations(generator)
    if recipe.teacher:
        load_generator(Path(recipe.teacher))
    _create_content_loss(recipe, generator)


def build_networks(recipe: Recipe, ranks: Ranks, *, steps: int, initialize: bool) -> Networks:
    """Create everything that a recipe trains, on the device of this process.

    `steps`: number of steps of the whole run. `initialize`: load the weights of `recipe.init`; False if a saved state
    is loaded afterwards. Raises UsageError for settings that cannot be used, and CheckpointError.
    """
    torch.manual_seed(recipe.seed)
    # The networks take random numbers in this order: another order gives other initial weights for the same seed.
    generator = _create_generator(recipe, initialize=initialize)
    teacher = load_generator(Path(recipe.teacher))[0] if recipe.teacher else None
    if teacher:
        teacher.requires_grad_(requires_grad=False)
    networks: dict[str, nn.Module] = {"generator": generator}
    if recipe.losses.adversarial:
        networks["discriminator"] = create_discriminator(recipe)
    if ranks.count > 1 and ranks.device.type == "cuda":
        networks = {name: _synchronize_statistics(network) for name, network in networks.items()}
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    for network in networks.values():
        _move(network, ranks.device, memory_format).train()  # pretrained encoders arrive in eval mode
    averaging = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(generator, ranks.device, multi_avg_fn=averaging) if recipe.ema_decay else None
    if recipe.checkpoint_activations:
        checkpoint_activations(generator)  # the average keeps no activations
    content_loss = _create_content_loss(recipe, generator).to(ranks.device)
    optimizers = {name: _create_optimizer(recipe, name, network, ranks.device) for name, network in networks.items()}
    schedules = {name: LearningRateSchedule(recipe, optimizer, steps=steps) for name, optimizer in optimizers.items()}
    compiled: dict[str, Any] = {"generator": torch.compile(generator)} if recipe.compile else {}
    step = Step(
        recipe,
        networks={name: ranks.wrap(network) for name, network in (networks | compiled).items()},
        optimizers=optimizers,
        content_loss=content_loss,
        bare_generator=generator,
        teacher=_move(teacher, ranks.device, memory_format) if teacher else None,
    )
    parts: dict[str, Any] = dict(networks) | ({"average": average} if average else {})
    for name in networks:
        parts[f"{name}_optimizer"] = optimizers[name]
        parts[f"{name}_schedule"] = schedules[name]
        parts[f"{name}_scaler"] = step.scalers[name]
    return Networks(generator, average, optimizers, schedules, content_loss, step, memory_format, parts)


def _create_generator(recipe: Recipe, *, initialize: bool) -> Generator:
    """Return the generator; a pretrained encoder is not loaded where other weights replace its own."""
    options = recipe.options
    if "pretrained" in options and (recipe.init or not initialize):
        options = options | {"pretrained": None}
    with settings_checked():
        generator = create_generator(recipe.generator, **options)
    if recipe.init and initialize:
        load_initial_weights(generator, Path(recipe.init))
    if recipe.half_init and initialize:
        load_half_pass(generator, Path(recipe.half_init))
    if recipe.trained_parts:
        _freeze_others(generator, recipe)
    return generator


def _freeze_others(generator: Generator, recipe: Recipe) -> None:
    """Let only `recipe.trained_parts` be trained; raises UsageError for a part that no weight's name begins with."""
    names = [name for name, _ in generator.named_parameters()]
    for part in recipe.trained_parts:
        if not any(name.startswith(part) for name in names):
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            what = f"trained_parts: no weight of {recipe.generator} begins with it"
            raise UsageError(what, part, hint=f"give {known}")
    for name, weight in generator.named_parameters():
        weight.requires_grad = name.startswith(recipe.trained_parts)


def _create_content_loss(recipe: Recipe, generator: Generator) -> ContentLoss:
    weights, order = recipe.losses.lpips_weights, generator.channel_order
    return ContentLoss(recipe.losses, lpips=Lpips(weights, channel_order=order) if recipe.needs_lpips else None)


def _create_optimizer(recipe: Recipe, name: str, network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if name == "discriminator":
        gan = recipe.gan
        own: dict[str, Any] = {"lr": gan.learning_rate, "weight_decay": gan.weight_decay, "betas": gan.betas}
        settings |= {key: value for key, value in own.items() if value is not None}
    fused = device.type == "cuda" or None
    optimizer: torch.optim.Optimizer = _OPTIMIZERS[recipe.optimizer](network.parameters(), **settings, fused=fused)
    return optimizer


def _synchronize_statistics(network: nn.Module) -> nn.Module:
    converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    return converted


def _move(network: Any, device: torch.device, memory_format: torch.memory_format) -> Any:
    return network.to(device, memory_format=memory_format)
