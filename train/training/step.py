"""One training step of a generator and, if the recipe has an adversarial loss, of its discriminator."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F

from runtime.errors import UsageError
from train.config import Recipe
from train.models import Generator, restore_nchw
from train.training.adversary import Adversary
from train.training.losses import ContentLoss, attention_distance, harm
from train.training.memory import hold_statistics

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FASTER_IN_BF16 = ("amx_bf16", "bf16")
"""Capabilities with which bfloat16 is faster than float32, of x86 and Arm CPUs, as torch.cpu names them."""


@dataclass
class Part:
    """Images of a step whose activations are in memory at the same time, float32[N, 3, H, W] in [0, 1] each."""

    blurred: Tensor
    sharp: Tensor
    restored: Tensor | None = None

    def take_restored(self) -> Tensor:
        """Return the restored images, which exist."""
        assert self.restored is not None
        return self.restored


class Step:
    """Updates the discriminator on the output of the generator, then the generator on the discriminator output.

    A network whose gradient is not finite is not updated.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        networks: dict[str, nn.Module],
        optimizers: dict[str, torch.optim.Optimizer],
        content_loss: ContentLoss,
        bare_generator: Generator,
        teacher: Generator | None = None,
    ) -> None:
        """Prepare the step.

        `networks`, `optimizers`: by name, `generator` and perhaps `discriminator`; networks may be wrapped
        (DistributedDataParallel, torch.compile). `bare_generator`: the generator without a wrapper, which states pixel
        range and channel order, also for the discriminator. Raises UsageError if a generator names no features that
        can be compared.
        """
        self.recipe, self.teacher = recipe, teacher
        self.networks = networks
        self.generator = networks["generator"]
        self.adversary = None
        if discriminator := networks.get("discriminator"):
            self.adversary = Adversary(recipe, discriminator, autocast=self.autocast)
        self.optimizers, self.content_loss = optimizers, content_loss
        self.bare_generator = bare_generator
        device = next(self.generator.parameters()).device.type
        self.precision = choose_precision(device, recipe.precision)
        self.scalers = {name: GradScaler(device, enabled=self.precision == "fp16") for name in optimizers}
        self._is_finite = True
        """Whether all gradients of the latest step were finite."""
        self.skipped = 0
        """Number of the latest steps in a row with a gradient that was not finite."""
        self.features: list[list[Tensor]] = []
        """Latest features of the generator and of the teacher, if they are compared; one list of length 1 each."""
        if teacher is not None and recipe.losses.feature_distillation:
            self.features = [_record_features(network) for network in (bare_generator, teacher)]

    def __call__(self, blurred: Tensor, sharp: Tensor, *, completed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """Train on a batch, float32[N, 3, H, W] in [0, 1] each; return the restored images and the losses by name.

        `completed`: number of completed steps of the run. With the losses come the norms of the gradients and, with a
        discriminator, its outputs. The gradients of parts of `recipe.batch` images are added up, in proportion to their
        sizes, before the weights change.
        """
        images = (torch.split(x, self.recipe.batch) for x in (blurred, sharp))
        parts = [Part(*both) for both in zip(*images, strict=True)]
        self._is_finite = True
        numbers: dict[str, Tensor] = {}
        adversary = self.adversary if self.adversary and self.adversary.takes_part(completed) else None
        if adversary:
            self._restore_for_discriminator(parts)
            for _ in range(self.recipe.gan.steps):
                numbers |= self._train_discriminator(adversary, parts, completed)
        numbers |= self._train_generator(adversary, parts, completed)
        self.skipped = 0 if self._is_finite else self.skipped + 1
        return torch.cat([part.take_restored().detach() for part in parts]), numbers

    def _restore(self, part: Part) -> Tensor:
        with self.autocast(part.blurred):
            return restore_nchw(self.generator, part.blurred, self.bare_generator)

    def _restore_for_discriminator(self, parts: list[Part]) -> None:
        """Restore all parts, and keep the graph of a single one for the turn of the generator.

        The graphs of several need the memory that parts save: the generator restores those again in its own turn.
        """
        if len(parts) == 1:
            parts[0].restored = self._restore(parts[0])
            return
        with torch.no_grad(), hold_statistics(self.bare_generator):
            for part in parts:
                part.restored = self._restore(part)

    def _train_discriminator(self, adversary: Adversary, parts: list[Part], completed: int) -> dict[str, Tensor]:
        def compute(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            real, fake = self._to_pixel_range(part.sharp), self._to_pixel_range(part.take_restored().detach())
            numbers = adversary.compute_own_losses(real, fake, completed=completed)
            return numbers["discriminator_loss"], numbers

        return self._update("discriminator", parts, compute)

    def _train_generator(self, adversary: Adversary | None, parts: list[Part], completed: int) -> dict[str, Tensor]:
        def compute(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            if part.restored is None or not part.restored.requires_grad:
                part.restored = self._restore(part)
            total, numbers = self._compute_content_losses(part.blurred, part.sharp, part.restored)
            if adversary:
                real, fake = self._to_pixel_range(part.sharp), self._to_pixel_range(part.restored)
                numbers |= adversary.compute_losses_of_generator(real, fake)
                total = total + adversary.weigh(numbers, completed=completed)
            return total, numbers | {"generator_loss": total}

        return self._update("generator", parts, compute)

    def _to_pixel_range(self, images: Tensor) -> Tensor:
        low, high = self.bare_generator.pixel_range
        return images * (high - low) + low

    def _compute_content_losses(
        self, blurred: Tensor, sharp: Tensor, restored: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum of the losses of the generator without the adversarial ones, and each by name."""
        weights = self.recipe.losses
        total, losses = self.content_loss.compute(restored, sharp)
        losses["content_loss"] = total
        if weights.harm:
            losses["harm_loss"] = harm(restored, blurred, sharp)
            total = total + weights.harm * losses["harm_loss"]
        if self.teacher is not None:
            losses["distillation_loss"] = F.l1_loss(restored, self._restore_with_teacher(blurred))
            total = total + weights.distillation * losses["distillation_loss"]
        if self.features:
            losses["feature_loss"] = attention_distance(*(output for (output,) in self.features))
            total = total + weights.feature_distillation * losses["feature_loss"]
        return total, losses

    @torch.no_grad()
    def _restore_with_teacher(self, blurred: Tensor) -> Tensor:
        """Return the output of the teacher, float32[N, 3, H, W] in [0, 1], in the generator's channel order."""
        assert self.teacher is not None
        swaps_channels = self.teacher.channel_order != self.bare_generator.channel_order
        with self.autocast(blurred):
            restored = restore_nchw(self.teacher, blurred.flip(1) if swaps_channels else blurred, self.teacher)
        restored = restored.clamp(0, 1)
        return restored.flip(1) if swaps_channels else restored

    def _update(
        self, name: str, parts: list[Part], compute: Callable[[Part], tuple[Tensor, dict[str, Tensor]]]
    ) -> dict[str, Tensor]:
        """Take one step of a network's optimizer unless the gradient is not finite.

        `compute`: returns the loss of a part, and the numbers for the log. Returns their means over the parts, and the
        norm of the gradient before clipping, which is the same in all processes: all of them skip the step or none.
        """
        optimizer, scaler, network = self.optimizers[name], self.scalers[name], self.networks[name]
        optimizer.zero_grad(set_to_none=True)
        count = sum(len(part.sharp) for part in parts)
        means: dict[str, Tensor] = {}
        for part in parts:
            share = len(part.sharp) / count
            with _exchange_gradients(network, exchange=part is parts[-1]):
                loss, numbers = compute(part)
                scaler.scale(share * loss).backward()  # type: ignore[no-untyped-call]
            for key, number in numbers.items():
                means[key] = means.get(key, 0.0) + share * number.detach()
        scaler.unscale_(optimizer)
        norm: Tensor = nn.utils.clip_grad_norm_(network.parameters(), self.recipe.gradient_clip or float("inf"))
        if torch.isfinite(norm):
            scaler.step(optimizer)
        else:
            self._is_finite = False
        scaler.update()
        return means | {f"{name}_gradient_norm": norm.detach()}

    def autocast(self, batch: Tensor) -> torch.autocast:
        """Return the context in which networks compute for a batch, in the precision of the recipe."""
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(batch.device.type, dtype, enabled=dtype is not None)


def _exchange_gradients(network: nn.Module, *, exchange: bool) -> AbstractContextManager[None]:
    """Return a context in which DistributedDataParallel averages gradients over the processes only if `exchange`."""
    if exchange or not isinstance(network, nn.parallel.DistributedDataParallel):
        return nullcontext()
    context: AbstractContextManager[None] = network.no_sync()
    return context


def choose_precision(device: str, precision: str) -> str:
    """Return the precision for a device, `cpu` or `cuda`: bf16 instead of `auto` if it is faster there.

    A CPU without bfloat16 emulates it, five times slower than it computes in float32; one that has it in AVX-512 alone,
    without AMX, is slower in it too.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        use_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # The oldest supported torch has no `get_capabilities`.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        use_bf16 = any(capabilities.get(name) for name in _FASTER_IN_BF16)
    return "bf16" if use_bf16 else "fp32"


def _record_features(network: Generator) -> list[Tensor]:
    """Return a list that holds the features of the latest forward pass; raises UsageError if the network names none."""
    if not network.feature_layer:
        what = f"features of {type(network).__name__} cannot be compared"
        raise UsageError(what, hint="set --set losses.feature_distillation=0")
    latest: list[Tensor] = []

    def record(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        latest[:] = [output]

    network.get_submodule(network.feature_layer).register_forward_hook(record)
    return latest
