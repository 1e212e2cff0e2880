"""One training step of a generator and, where the recipe has one, its discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F

from train.config import Recipe
from train.models import Generator, restored_planes
from train.training.losses import (
    ContentLoss,
    adversarial_loss,
    attention_distance,
    discriminator_loss,
    gradient_penalty,
)

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_COMPUTES_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Capabilities of x86 and Arm CPUs, as torch.cpu names them."""


class Step:
    """Updates the discriminator on the generator's picture, then the generator on its judgement.

    `networks`: `generator` and, where there is one, `discriminator`; they may be wrapped
    (DistributedDataParallel, torch.compile). A network whose gradient is not finite is left as
    it was; `skipped` counts the steps in a row of which that is true. `sees`: the generator as
    it is, which knows how it sees pixels; the discriminator sees them in the same range.
    `teacher`: a generator whose pictures are learned from as well.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        networks: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        content_loss: ContentLoss,
        sees: Generator,
        teacher: Generator | None = None,
    ) -> None:
        self.recipe, self.teacher = recipe, teacher
        self.networks = networks
        self.generator, self.discriminator = networks["generator"], networks.get("discriminator")
        self.optimizers, self.content_loss = optimizers, content_loss
        self.sees = sees
        place = next(self.generator.parameters()).device.type
        self.precision = precision_on(place, recipe.precision)
        self.scalers = {name: GradScaler(place, enabled=self.precision == "fp16") for name in optimizers}
        self.skipped = 0
        self.features: list[list[Tensor]] = []
        """What the generator and the teacher last gave where they are compared; one list of one for each."""
        if teacher is not None and recipe.losses.feature_distillation:
            self.features = [_last_output(network) for network in (sees, teacher)]

    def __call__(self, blurred: Tensor, sharp: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """float32[N, 3, H, W] in [0, 1] blurred and sharp -> restored, and the losses by name."""
        with self._autocast(blurred):
            restored = restored_planes(self.generator, blurred, self.sees)
        low, high = self.sees.pixel_range
        real, fake = (pictures * (high - low) + low for pictures in (sharp, restored))
        finite, losses = True, {}
        if self.discriminator is not None:
            losses["discriminator_loss"] = self._discriminator_loss(real, fake.detach())
            finite = self._update("discriminator", losses["discriminator_loss"])
        losses["content_loss"] = losses["generator_loss"] = self.content_loss(restored, sharp)
        if self.teacher is not None:
            losses["distillation_loss"] = F.l1_loss(restored, self._taught(blurred))
            losses["generator_loss"] = (
                losses["generator_loss"] + self.recipe.losses.distillation * losses["distillation_loss"]
            )
        if self.features:
            losses["feature_loss"] = attention_distance(*(output for (output,) in self.features))
            losses["generator_loss"] = (
                losses["generator_loss"] + self.recipe.losses.feature_distillation * losses["feature_loss"]
            )
        if self.discriminator is not None:
            losses["adversarial_loss"] = self._adversarial_loss(fake)
            losses["generator_loss"] = (
                losses["generator_loss"] + self.recipe.losses.adversarial * losses["adversarial_loss"]
            )
        finite &= self._update("generator", losses["generator_loss"])
        self.skipped = 0 if finite else self.skipped + 1
        return restored.detach(), {name: loss.detach() for name, loss in losses.items()}

    @torch.no_grad()
    def _taught(self, blurred: Tensor) -> Tensor:
        """The teacher's picture, float32[N, 3, H, W] in [0, 1] and the generator's order of colours."""
        assert self.teacher is not None
        swap = self.teacher.channel_order != self.sees.channel_order
        with self._autocast(blurred):
            taught = restored_planes(self.teacher, blurred.flip(1) if swap else blurred, self.teacher).clamp(0, 1)
        return taught.flip(1) if swap else taught

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        assert self.discriminator is not None
        kind = self.recipe.losses.adversarial_kind
        with self._autocast(real):
            judgements = [self.discriminator(pictures) for pictures in (real, fake)]
        loss = discriminator_loss(judgements[0].float(), judgements[1].float(), kind)
        if kind == "wgan_gp":
            loss = loss + gradient_penalty(_bare(self.discriminator), real, fake)
        return loss

    def _adversarial_loss(self, fake: Tensor) -> Tensor:
        """Through the bare discriminator, whose weights take no gradient here."""
        assert self.discriminator is not None
        discriminator = _bare(self.discriminator).requires_grad_(requires_grad=False)
        with self._autocast(fake):
            judgements = discriminator(fake)
        discriminator.requires_grad_()
        return adversarial_loss(judgements.float(), self.recipe.losses.adversarial_kind)

    def _update(self, name: str, loss: Tensor) -> bool:
        """One step of a network's optimizer, unless its gradient is not finite; tells whether it was.

        The gradient is the same on all ranks, so that all skip or none does.
        """
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.networks[name].parameters(), self.recipe.gradient_clip or float("inf"))
        finite = bool(torch.isfinite(norm))
        if finite:
            scaler.step(optimizer)
        scaler.update()
        return finite

    def _autocast(self, on: Tensor) -> torch.autocast:
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(on.device.type, dtype, enabled=dtype is not None)


def _last_output(network: Generator) -> list[Tensor]:
    """A list of what the network's features were in its last forward pass; raises ValueError if it names none."""
    if not network.features_at:
        raise ValueError(f"features of {type(network).__name__} are not compared: --set losses.feature_distillation=0")
    last: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        last[:] = [output]

    network.get_submodule(network.features_at).register_forward_hook(keep)
    return last


def precision_on(place: str, wanted: str) -> str:
    """`wanted`, or what `auto` stands for on `cpu` or `cuda`.

    A CPU without bfloat16 emulates it, five times slower than it computes in float32.
    """
    if wanted != "auto":
        return wanted
    if place == "cuda":
        there = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        found = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch that we take
        there = any(found.get(name) for name in _COMPUTES_BF16)
    return "bf16" if there else "fp32"


def _bare(network: nn.Module) -> nn.Module:
    """The network inside DistributedDataParallel."""
    return network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
