"""Learning-rate schedule of a recipe, composed of torch's schedulers."""

from __future__ import annotations

import math
import warnings
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau, StepLR

from train.config import Recipe


def learning_rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step, counted from 1, of a run of `steps`.

    The factor rises linearly during the warm-up. After it, it is 1, or falls to 0 along half a cosine (Loshchilov and
    Hutter 2017). `cyclic` has no warm-up: the factor rises from `cycle_low` to 1 and falls back (Smith 2017, the
    triangular policy).
    """
    if recipe.schedule == "cyclic":
        position = (step - 1) % recipe.cycle_steps / recipe.cycle_steps  # from 0 to below 1
        return recipe.cycle_low + (1 - recipe.cycle_low) * (1 - abs(1 - 2 * position))
    if step <= recipe.warmup_steps:
        return step / recipe.warmup_steps
    if recipe.schedule != "cosine":
        return 1.0
    progress = (step - recipe.warmup_steps) / max(1, steps - recipe.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class LearningRateSchedule:
    """Changes the learning rate of an optimizer after each step and each epoch."""

    def __init__(self, recipe: Recipe, optimizer: Optimizer, *, steps: int) -> None:
        """`steps`: number of steps of the whole run."""
        self._parts: dict[str, Any] = {}
        if recipe.schedule in {"cosine", "cyclic"} or recipe.warmup_steps:
            self._parts["step"] = LambdaLR(optimizer, lambda done: learning_rate_factor(recipe, done + 1, steps))
        if recipe.tenth_every_epochs:
            self._parts["tenth"] = StepLR(optimizer, recipe.tenth_every_epochs, gamma=0.1)
        if recipe.schedule == "plateau":
            self._parts["plateau"] = ReduceLROnPlateau(optimizer, factor=0.5, patience=recipe.patience_epochs)

    def after_step(self) -> None:
        """Set the learning rate of the next step."""
        if "step" in self._parts:
            with warnings.catch_warnings():
                # Meant for a wrong order; here the discriminator's optimizer may not have begun (`gan.start_step`).
                warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
                self._parts["step"].step()

    def after_epoch(self, validation_loss: float) -> None:
        """Set the learning rate of the next epoch."""
        if "tenth" in self._parts:
            self._parts["tenth"].step()
        if "plateau" in self._parts:
            self._parts["plateau"].step(validation_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
