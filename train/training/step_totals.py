"""Sums over an epoch, which become the training numbers of its log entry."""

from __future__ import annotations

from torch import Tensor

from train.metrics import Similarity

LOSSES = ("generator_loss", "content_loss", "distillation_loss", "feature_loss")
_OF_DISCRIMINATOR = (
    "adversarial_loss",
    "feature_matching_loss",
    "discriminator_loss",
    "penalty",
    "real_output",
    "fake_output",
    "generator_gradient_norm",
    "discriminator_gradient_norm",
)
_MAY_BE_ZERO = ("adversarial_loss", "discriminator_loss", "real_output", "fake_output")
"""Numbers that every step with a discriminator has; others that are 0 do not exist."""
_SCORES = ("psnr_db", "ssim")
_GROUPS = {"steps": LOSSES, "adversarial_steps": _OF_DISCRIMINATOR, "pictures": _SCORES}
_KEYS = ("skipped_steps", *_GROUPS, *(name for names in _GROUPS.values() for name in names))
"""Names of the sums in `state.pt`: losses are summed over `steps`, which do not include the skipped ones; the numbers
of the discriminator over `adversarial_steps`, those in which it took part; and scores over `pictures`, the images that
were measured."""


class EpochTotals:
    """Sums over the steps of the current epoch in this process."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys(_KEYS, 0.0)
        self._pending: list[dict[str, Tensor]] = []
        """Losses that are not in the sums yet: to read one, the CPU must wait for the GPU."""

    def clear(self) -> None:
        """Set all sums to 0."""
        self.sums = dict.fromkeys(_KEYS, 0.0)

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


def average_sums(sums: dict[str, float]) -> dict[str, float]:
    """Return the means of the losses and scores that an epoch has, by name."""
    averages: dict[str, float] = {}
    for count, names in _GROUPS.items():
        if sums[count]:
            averages |= {name: sums[name] / sums[count] for name in names if sums[name] or name in _MAY_BE_ZERO}
    return averages
