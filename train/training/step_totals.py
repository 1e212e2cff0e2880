"""Sums over an epoch, or a few steps, which become the training numbers of the log."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from train.metrics import Similarity

_OF_GENERATOR = (
    "generator_loss",
    "content_loss",
    "harm_loss",
    "distillation_loss",
    "feature_loss",
    "generator_gradient_norm",
)
_OF_DISCRIMINATOR = (
    "adversarial_loss",
    "feature_matching_loss",
    "discriminator_loss",
    "penalty",
    "real_output",
    "fake_output",
    "discriminator_gradient_norm",
)
_OPTIONAL = ("harm_loss", "distillation_loss", "feature_loss", "feature_matching_loss", "penalty")
"""Numbers that only some recipes have; where their sum is 0, they do not exist."""
_SCORES = ("psnr_db", "ssim")


class StepTotals:
    """Sums over the steps of the current epoch, or of fewer, in this process.

    Losses are summed over `steps`, which do not include the skipped ones; the numbers of the discriminator over
    `adversarial_steps`, those in which it took part; and scores over `pictures`, the images that were measured.
    """

    def __init__(self, content_losses: Iterable[str]) -> None:
        """`content_losses`: names of the losses that compare images (`ContentLoss.names`)."""
        self._groups: dict[str, tuple[str, ...]] = {
            "steps": (*_OF_GENERATOR, *content_losses),
            "adversarial_steps": _OF_DISCRIMINATOR,
            "pictures": _SCORES,
        }
        self._pending: list[dict[str, Tensor]] = []
        """Losses that are not in the sums yet: to read one, the CPU must wait for the GPU."""
        self.sums: dict[str, float] = {}
        """Sums by name, the same names in all processes and in `state.pt`."""
        self.clear()

    def clear(self) -> None:
        """Set all sums to 0."""
        names = [name for group in self._groups.values() for name in group]
        self.sums = dict.fromkeys(("skipped_steps", *self._groups, *names), 0.0)

    def add_skipped_step(self) -> None:
        """Count a step whose gradient was not finite."""
        self.sums["skipped_steps"] += 1

    def add_step(self, losses: dict[str, Tensor]) -> None:
        """Count a step and add its losses later, in `read_pending`."""
        self.sums["steps"] += 1
        self.sums["adversarial_steps"] += "discriminator_loss" in losses
        self._pending.append(losses)

    def add_scores(self, similarities: list[Similarity]) -> None:
        """Add the image quality of a batch."""
        self.sums["pictures"] += len(similarities)
        self.sums["psnr_db"] += sum(similarity.psnr_db for similarity in similarities)
        self.sums["ssim"] += sum(similarity.ssim for similarity in similarities)

    def read_pending(self) -> None:
        """Add all losses that were not added yet."""
        for losses in self._pending:
            for name, loss in losses.items():
                self.sums[name] += float(loss)
        self._pending.clear()

    def average(self, sums: dict[str, float]) -> dict[str, float]:
        """Return the means of the losses and scores that exist, by name; `sums`: those of all processes."""
        averages: dict[str, float] = {}
        for count, names in self._groups.items():
            if sums[count]:
                averages |= {name: sums[name] / sums[count] for name in names if sums[name] or name not in _OPTIONAL}
        return averages
