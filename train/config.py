"""What a training run is made of: frozen dataclasses, overridable from the command line."""

from __future__ import annotations

import ast
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from train.data.blur import BlurConfig
from train.fields import check_types
from train.models.patch_gan import Normalisation


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the generator's losses (`train.training.losses`); zero leaves one out.

    All but the adversarial one are taken on pixels in [0, 1], whatever range the network sees.
    """

    mse: float = 0.0
    l1: float = 0.0
    charbonnier: float = 0.0
    ssim: float = 0.0
    """Of 1 - SSIM."""
    multi_scale_l1: float = 0.0
    fft_l1: float = 0.0
    lpips: float = 0.0
    lpips_weights: str | None = None
    """File with the AlexNet variant's weights (`train.training.lpips`)."""
    adversarial: float = 0.0
    adversarial_kind: Literal["bce", "bce_logits", "wgan_gp"] = "bce"
    distillation: float = 1.0
    """Of the L1 distance to the picture of the recipe's `teacher`, where it has one."""
    feature_distillation: float = 0.0
    """Of the distance between the places where its features and the generator's are strong."""

    def __post_init__(self) -> None:
        check_types(self)
        weights = {name: value for name, value in dataclasses.asdict(self).items() if isinstance(value, (int, float))}
        if min(weights.values()) < 0:
            raise ValueError(f"weights of losses must not be negative, got {min(weights.values())}")
        if not any(value for name, value in weights.items() if "distillation" not in name):
            raise ValueError("give at least one loss a weight, such as --set losses.l1=1.0")
        if self.lpips and not self.lpips_weights:
            raise ValueError("losses.lpips needs a file of weights: --set losses.lpips_weights=FILE")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which pictures are trained on, and as what."""

    view: Literal["crop", "resize", "whole"] = "crop"
    """`crop`: squares, made once and kept on disk; `resize`: whole pictures brought to `size_px`;
    `whole`: as they are, all of one size."""
    size_px: tuple[int, int] = (128, 128)
    """Width and height of a crop or a resized picture."""
    crops: int = 40_000
    """How many crops are made."""
    shares: tuple[float, ...] = ()
    """Of the crops, one for each folder of pictures, in any measure; none: as many from each."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Sharp photographs are reduced by a factor from this range before they are cropped."""
    flips: bool = False
    """Mirror half of the pairs left to right."""
    quarter_turns: bool = False
    """Turn crops by 0, 90, 180 or 270 degrees."""
    rotation_deg: float = 0.0
    """Turn by an angle of up to this, either way; the border is mirrored."""
    blurred_folder: str = "blur"
    """GOPRO_Large has `blur` and `blur_gamma`."""
    validation: Literal["train", "test"] = "train"
    """Validate on a share of the training pictures, or on the `test` folder where there is one."""
    validation_share: float = 0.1
    blur: BlurConfig = field(default_factory=BlurConfig)
    """Of sharp pictures that come without a blurred partner."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.size_px) < 1 or self.crops < 1:
            raise ValueError(f"size_px and crops must be at least 1, got {self.size_px} and {self.crops}")
        if self.view == "crop" and self.size_px[0] != self.size_px[1]:
            raise ValueError(f"crops are square, got size_px {self.size_px}")
        if self.view != "crop" and self.quarter_turns:
            raise ValueError("quarter_turns need square crops: --set data.view=crop")
        if self.shares and min(self.shares) <= 0:
            raise ValueError(f"shares must be positive, got {self.shares}")
        if self.shares and self.view != "crop":
            raise ValueError("shares are of crops: --set data.view=crop")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {self.scale}")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must lie between 0 and 1, got {self.validation_share}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides how a run ends, but for the pictures themselves."""

    generator: str
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the generator (`train.models`)."""
    init: str | None = None
    """Checkpoint whose weights the generator begins with; random ones without it."""
    teacher: str | None = None
    """Checkpoint of a better generator, whose pictures are learned from too (`losses.distillation`)."""
    normalisation: Normalisation = "batch"
    """Of the discriminator, which there is when `losses.adversarial` has a weight."""
    losses: LossConfig
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    batch: int
    """Pairs a step and process."""
    epochs: int
    max_steps: int | None = None
    """Stop after so many steps, if the epochs have more."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Of both networks; `adam` adds weight decay to the gradient (L2), `adamw` does not."""
    learning_rate: float
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """`cosine`: the learning rate falls to nothing along half a cosine; `plateau`: it is halved after
    more than `patience_epochs` without a better validation loss."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises to its value."""
    patience_epochs: int = 5
    tenth_every_epochs: int = 0
    """Divide the learning rate by ten each so many epochs."""
    early_stopping_epochs: int = 0
    """Stop after so many epochs without a better validation loss."""
    gradient_clip: float = 0.0
    """Largest norm of a network's gradient."""
    ema_decay: float = 0.0
    """Validate and publish an exponential moving average of the generator."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Of the generator's and discriminator's forward pass; weights and losses stay in float32.
    `auto`: bf16 on what computes in it, else fp32."""
    channels_last: bool = False
    compile: bool = False
    """`torch.compile` the generator."""
    save_steps: int = 500
    """Steps between two saves of the state, besides the one after each epoch."""
    metrics_steps: int = 1
    """PSNR and SSIM of the training pictures are taken each so many steps."""
    workers: int = 2
    """Processes that read pictures; crops come without."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("batch", "epochs", "save_steps", "metrics_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("seed", "learning_rate", "weight_decay", "warmup_steps", "gradient_clip", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        if self.tenth_every_epochs and (self.schedule == "cosine" or self.warmup_steps):
            raise ValueError("tenth_every_epochs does not go with the cosine schedule or warmup_steps")
        if self.schedule == "plateau" and self.warmup_steps:
            raise ValueError("warmup_steps do not go with the plateau schedule")
        if self.losses.adversarial_kind == "wgan_gp" and self.losses.adversarial and self.normalisation == "batch":
            raise ValueError("wgan_gp judges each picture alone: --set normalisation=instance")

    def to_json(self) -> str:
        """Every value, as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The inverse of `to_json`; raises ValueError, KeyError or TypeError for anything else."""
        values = json.loads(text)
        data = values.pop("data")
        blur = BlurConfig(**_tuples(data.pop("blur")))
        losses = LossConfig(**values.pop("losses"))
        options = _tuples(values.pop("options"))
        return cls(**values, options=options, losses=losses, data=DataConfig(**_tuples(data), blur=blur))


_PAPER_DATA = DataConfig(view="resize", size_px=(224, 224), validation="test")

_EDGE = Recipe(
    generator="edge",
    losses=LossConfig(charbonnier=1.0, fft_l1=0.1),
    data=DataConfig(
        scale=(0.5, 1.0),
        flips=True,
        quarter_turns=True,
        validation_share=1 / 16,
        blur=BlurConfig(length_px=(0.0, 32.0), codes_share=0.5),
    ),
    batch=16,
    epochs=20,
    optimizer="adamw",
    learning_rate=6e-4,
    weight_decay=1e-4,
    warmup_steps=500,
    schedule="cosine",
    gradient_clip=0.1,
    ema_decay=0.999,
    precision="auto",
    channels_last=True,
    metrics_steps=100,
)

RECIPES: dict[str, Recipe] = {
    # "Two-Stage CNN Framework for Single-Image Deblurring and Restoration", section 3.3. The paper
    # does not say which pictures validate; a tenth of the training sequences does here.
    "two_stage": Recipe(
        generator="two_stage_cnn",
        losses=LossConfig(mse=1.0, ssim=0.3, adversarial=0.01),
        data=DataConfig(view="resize", size_px=(800, 450), flips=True, rotation_deg=10.0),
        batch=4,
        epochs=100,
        learning_rate=5e-4,
        weight_decay=5e-4,
        schedule="plateau",
        tenth_every_epochs=30,
        early_stopping_epochs=10,
    ),
    # The DeblurGAN-v2 paper, sections V and VI. It calls the weights of its losses empirical and
    # gives none.
    "deblurgan_v2": Recipe(
        generator="resnet_unet",
        options={"pretrained": "microsoft/resnet-50"},
        losses=LossConfig(l1=1.0, multi_scale_l1=1.0, adversarial=0.01, adversarial_kind="bce_logits"),
        data=_PAPER_DATA,
        batch=8,
        epochs=50,
        learning_rate=1e-4,
    ),
    # The same paper, section II.
    "swin_mse": Recipe(
        generator="swin_deblur",
        options={"pretrained": "microsoft/swin-base-patch4-window7-224"},
        losses=LossConfig(mse=1.0),
        data=_PAPER_DATA,
        batch=8,
        epochs=50,
        learning_rate=1e-4,
    ),
    # The bundled engines', by their names.
    "edge-s": dataclasses.replace(_EDGE, options={"widths": (32, 64, 96), "blocks": (1, 1, 2)}),
    "edge-m": dataclasses.replace(_EDGE, options={"widths": (48, 96, 96), "blocks": (1, 2, 2)}),
    "edge-l": dataclasses.replace(_EDGE, options={"widths": (64, 96, 96), "blocks": (2, 2, 2)}),
}


def overridden(config: Any, overrides: list[str]) -> Any:
    """A copy of a dataclass with `KEY=VALUE` overrides, `data.blur.KEY` for nested ones.

    All overrides of one dataclass take effect together. Raises ValueError.
    """
    own: dict[str, Any] = {}
    nested: dict[str, list[str]] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        head, dot, rest = name.partition(".")
        known = [f.name for f in dataclasses.fields(config)]
        if not equals or head not in known:
            raise ValueError(f"--set {override}: expected KEY=VALUE, KEY one of {', '.join(known)}")
        if not dot:
            own[name] = _value(text)
        elif dataclasses.is_dataclass(getattr(config, head)):
            nested.setdefault(head, []).append(f"{rest}={text}")
        elif isinstance(getattr(config, head), dict):
            own[head] = {**own.get(head, getattr(config, head)), rest: _value(text)}
        else:
            raise ValueError(f"--set {override}: {head} has no parts")
    parts = {name: overridden(getattr(config, name), texts) for name, texts in nested.items()}
    return dataclasses.replace(config, **own, **parts)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where the dataclasses have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
