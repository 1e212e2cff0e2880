"""Settings of the discriminator and of its part in training, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.fields import check_types
from train.models.patch_gan import Normalisation

AdversarialKind = Literal["bce", "bce_logits", "wgan_gp", "hinge", "lsgan", "ragan", "ragan_ls"]
"""Adversarial losses (`train.training.adversarial`)."""
_MAX_SCALES, _MAX_WIDTH = 5, 512


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """Discriminator of a recipe whose `losses.adversarial` is not 0, and how it is trained."""

    discriminator: Literal["patch_gan", "multi_scale", "hierarchical", "unet"] = "patch_gan"
    """`multi_scale`: patch discriminators of the image and of smaller copies (Wang et al. 2018, pix2pixHD);
    `hierarchical`: one of patches and one of the whole image (Kupyn et al. 2019, DeblurGAN-v2); `unet`: one output for
    each pixel (Wang et al. 2021, Real-ESRGAN), which has spectral but no other normalisation."""
    width: int = 64
    """Number of channels of the first convolution of the discriminator."""
    scales: int = 2
    """Number of sizes of the image that `multi_scale` has discriminators for; each is half of the one before."""
    spectral_norm: bool = False
    """Divide the weights of discriminators other than `unet` by their largest singular value (Miyato et al. 2018)."""
    learning_rate: float | None = None
    """Learning rate of the discriminator (Heusel et al. 2017, two time scales); None: that of the generator."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the two moments of the discriminator's Adam; Gulrajani et al. 2017 use (0.0, 0.9)."""
    weight_decay: float | None = None
    """Weight decay of the discriminator; None: that of the generator."""
    steps: int = 1
    """Number of updates of the discriminator for one of the generator, on the same images (as the code of Kupyn et al.
    2018, DeblurGAN, has it; Gulrajani et al. 2017 take new images each time)."""
    start_step: int = 0
    """Number of steps without a discriminator at the start (Ledig et al. 2017 train with the content loss first)."""
    warmup_steps: int = 0
    """Number of steps after `start_step` in which the weights of the adversarial loss and of `feature_matching` rise
    linearly; the discriminator learns from the first of them."""
    feature_matching: float = 0.0
    """Weight of the L1 distance between the discriminator's features of both images (Wang et al. 2018)."""
    label_smoothing: float = 0.0
    """Distance of the label of sharp images to 1 (one-sided: Salimans et al. 2016)."""
    r1: float = 0.0
    """Weight gamma of the penalty gamma / 2 |gradient|^2 at sharp images (Mescheder et al. 2018)."""
    r1_every_steps: int = 1
    """Number of steps between two such penalties, each multiplied by it (Karras et al. 2020, lazy regularisation)."""
    shift_px: float = 0.0
    """Largest shift, in pixels, in each direction, of what the discriminator sees: at random, by fractions of pixels,
    with bicubic interpolation, equal for a restored image and its sharp partner (compare Zhao et al. 2020, DiffAugment,
    whose shifts are whole pixels)."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("width", "scales", "steps", "r1_every_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"gan.{name} must be at least 1, got {getattr(self, name)}")
        not_negative = (
            "learning_rate",
            "weight_decay",
            "start_step",
            "warmup_steps",
            "feature_matching",
            "r1",
            "shift_px",
        )
        for name in not_negative:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"gan.{name} must not be negative, got {value}")
        for name, most in (("scales", _MAX_SCALES), ("width", _MAX_WIDTH)):
            if getattr(self, name) > most:
                raise ValueError(f"gan.{name} must be at most {most}, got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"gan.betas must be at least 0 and below 1, got {self.betas}")
        if not 0 <= self.label_smoothing < 0.5:
            raise ValueError(f"gan.label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")

    def check_kind(self, kind: AdversarialKind, normalisation: Normalisation) -> None:
        """Raise ValueError if a setting does not go with the adversarial loss."""
        if kind == "wgan_gp" and normalisation == "batch" and self.discriminator != "unet":
            raise ValueError(
                "wgan_gp needs a normalisation that does not mix the images of a batch: --set normalisation=instance"
            )
        if self.label_smoothing and kind in {"hinge", "wgan_gp"}:
            raise ValueError(f"gan.label_smoothing needs a loss with labels, and {kind} has none")
        if self.r1 and kind == "bce":
            raise ValueError("gan.r1 needs outputs that are no probabilities: --set losses.adversarial_kind=bce_logits")
        if self.r1 and kind == "wgan_gp":
            raise ValueError("gan.r1 does not go with wgan_gp, which has a penalty of its own")
