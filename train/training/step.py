"""One training step of a generator and, if the recipe has an adversarial loss, of its discriminator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F

from runtime.errors import UsageError
from train.config import Recipe
from train.models import Generator, restore_nchw
from train.training.adversary import Adversary
from train.training.losses import ContentLoss, attention_distance

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_COMPUTES_BF16 = ("avx512_bf16", "amx_bf16", "bf16")
"""Capabilities of x86 and Arm CPUs, as torch.cpu names them."""


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
            self.adversary = Adversary(recipe, discriminator, autocast=self._autocast)
        self.optimizers, self.content_loss = optimizers, content_loss
        self.bare_generator = bare_generator
        device = next(self.generator.parameters()).device.type
        self.precision = choose_precision(device, recipe.precision)
        self.scalers = {name: GradScaler(device, enabled=self.precision == "fp16") for name in optimizers}
        self.skipped = 0
        """Number of the latest steps in a row with a gradient that was not finite."""
        self.features: list[list[Tensor]] = []
        """Latest features of the generator and of the teacher, if they are compared; one list of length 1 each."""
        if teacher is not None and recipe.losses.feature_distillation:
            self.features = [_record_features(network) for network in (bare_generator, teacher)]

    def __call__(self, blurred: Tensor, sharp: Tensor, *, completed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
        """Train on a batch, float32[N, 3, H, W] in [0, 1] each; return the restored images and the losses by name.

        `completed`: number of completed steps of the run. With a discriminator, its outputs and the norms of both
        gradients are returned too.
        """
        with self._autocast(blurred):
            restored = restore_nchw(self.generator, blurred, self.bare_generator)
        low, high = self.bare_generator.pixel_range
        real, fake = (images * (high - low) + low for images in (sharp, restored))
        numbers: dict[str, Tensor] = {}
        is_finite = True
        adversary = self.adversary if self.adversary and self.adversary.takes_part(completed) else None
        if adversary:
            for _ in range(self.recipe.gan.steps):
                numbers |= adversary.compute_own_losses(real, fake.detach(), completed=completed)
                norm = self._update("discriminator", numbers["discriminator_loss"])
                numbers["discriminator_gradient_norm"] = norm
                is_finite &= bool(torch.isfinite(norm))
        numbers |= self._compute_content_losses(blurred, sharp, restored)
        total = numbers.pop("total")
        if adversary:
            numbers |= adversary.compute_losses_of_generator(real, fake)
            total = total + adversary.weigh(numbers, completed=completed)
        norm = self._update("generator", total)
        is_finite &= bool(torch.isfinite(norm))
        numbers |= {"generator_loss": total} | ({"generator_gradient_norm": norm} if adversary else {})
        self.skipped = 0 if is_finite else self.skipped + 1
        return restored.detach(), {name: number.detach() for name, number in numbers.items()}

    def _compute_content_losses(self, blurred: Tensor, sharp: Tensor, restored: Tensor) -> dict[str, Tensor]:
        """Return the losses of the generator without the adversarial ones by name; `total` is their weighted sum."""
        weights = self.recipe.losses
        losses = {"content_loss": self.content_loss(restored, sharp)}
        total = losses["content_loss"]
        if self.teacher is not None:
            losses["distillation_loss"] = F.l1_loss(restored, self._restore_with_teacher(blurred))
            total = total + weights.distillation * losses["distillation_loss"]
        if self.features:
            losses["feature_loss"] = attention_distance(*(output for (output,) in self.features))
            total = total + weights.feature_distillation * losses["feature_loss"]
        return losses | {"total": total}

    @torch.no_grad()
    def _restore_with_teacher(self, blurred: Tensor) -> Tensor:
        """Return the output of the teacher, float32[N, 3, H, W] in [0, 1], in the generator's channel order."""
        assert self.teacher is not None
        swaps_channels = self.teacher.channel_order != self.bare_generator.channel_order
        with self._autocast(blurred):
            restored = restore_nchw(self.teacher, blurred.flip(1) if swaps_channels else blurred, self.teacher)
        restored = restored.clamp(0, 1)
        return restored.flip(1) if swaps_channels else restored

    def _update(self, name: str, loss: Tensor) -> Tensor:
        """Take one step of a network's optimizer unless the gradient is not finite; return its norm before clipping.

        The gradient is the same in all processes, so that all of them skip the step or none.
        """
        optimizer, scaler = self.optimizers[name], self.scalers[name]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm: Tensor = nn.utils.clip_grad_norm_(
            self.networks[name].parameters(), self.recipe.gradient_clip or float("inf")
        )
        if torch.isfinite(norm):
            scaler.step(optimizer)
        scaler.update()
        return norm

    def _autocast(self, batch: Tensor) -> torch.autocast:
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(batch.device.type, dtype, enabled=dtype is not None)


def choose_precision(device: str, precision: str) -> str:
    """Return the precision for a device, `cpu` or `cuda`: bf16 instead of `auto` if the device computes in it.

    A CPU without bfloat16 emulates it, five times slower than it computes in float32.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # The oldest supported torch has no `get_capabilities`.
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        has_bf16 = any(capabilities.get(name) for name in _COMPUTES_BF16)
    return "bf16" if has_bf16 else "fp32"


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
