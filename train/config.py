"""Settings of a training run: frozen dataclasses, with overrides from the command line."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from runtime.json_text import parse_json
from runtime.metrics import SSIM_MIN_PX
from train.data.blur import BlurConfig
from train.fields import build_config, check_types, parse_value
from train.gan_config import AdversarialKind, GanConfig
from train.models.patch_gan import Normalisation

Config = TypeVar("Config")
MAX_CROPS = 10**9


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the generator's losses (`train.training.losses`); a loss of weight 0 is not computed.

    All losses but the adversarial one compare pixels in [0, 1], whatever range the network uses.
    """

    mse: float = 0.0
    l1: float = 0.0
    charbonnier: float = 0.0
    ssim: float = 0.0
    """Weight of 1 - SSIM."""
    multi_scale_l1: float = 0.0
    fft_l1: float = 0.0
    grid_l1: float = 0.0
    """Weight of the strength of what repeats every 4 pixels in the error."""
    harm: float = 0.0
    """Weight of the error by which squares of 32 pixels are worse than in the blurred image. It needs another loss."""
    lpips: float = 0.0
    lpips_weights: str | None = None
    """File with the weights of LPIPS for AlexNet (`train.training.lpips`); None: where `train.lpips_weights` put it."""
    adversarial: float = 0.0
    adversarial_kind: AdversarialKind = "bce"
    distillation: float = 1.0
    """Weight of the L1 distance to the output of the recipe's `teacher`; unused without a teacher."""
    feature_distillation: float = 0.0
    """Weight of the distance between the attention maps of the generator and the teacher."""

    def __post_init__(self) -> None:
        check_types(self)
        weights = {name: value for name, value in dataclasses.asdict(self).items() if isinstance(value, (int, float))}
        if min(weights.values()) < 0:
            raise ValueError(f"weights of losses must not be negative, got {min(weights.values())}")
        if not any(value for name, value in weights.items() if name != "harm" and "distillation" not in name):
            needed = "harm needs another loss beside it" if self.harm else "give at least one loss a weight"
            raise ValueError(f"{needed}, such as --set losses.l1=1.0")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Images to train on, and what is done to them."""

    view: Literal["crop", "resize", "whole"] = "crop"
    """`crop`: squares, made once and kept on disk unless `fresh_crops`; `resize`: whole images, resized to `size_px`;
    `whole`: whole images at their own size, which must be the same for all."""
    size_px: tuple[int, int] = (128, 128)
    """Width and height of a crop or of a resized image, in pixels; at least 11, the window of SSIM."""
    crops: int = 40_000
    """Number of crops."""
    shares: tuple[float, ...] = ()
    """Relative numbers of crops from each folder of images; empty: the same number from each."""
    progressive: tuple[tuple[float, int], ...] = ()
    """Smaller squares at first, as pairs of a share of all steps, which rises, and a side in pixels: until that share,
    every crop of a batch is cut into squares of this side, all of which are in the batch (Zamir et al. 2022,
    Restormer)."""
    fresh_crops: bool = False
    """Draw other crops in every epoch, with other synthetic blur, from decoded images that are kept on disk."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the factor by which sharp photographs are reduced before they are cropped."""
    flips: bool = False
    """Mirror half of the pairs left to right."""
    quarter_turns: bool = False
    """Rotate crops by 0, 90, 180 or 270 degrees."""
    rotation_deg: float = 0.0
    """Largest angle of a rotation in either direction; pixels outside the image are mirrored at its border."""
    blurred_folder: str = "blur"
    """Name of the folders of blurred images; GOPRO_Large has `blur` and `blur_gamma`."""
    validation: Literal["train", "test"] = "train"
    """`test`: validate on the folder `test`, if the data has one; `train`: on a share of the training images."""
    validation_share: float = 0.1
    """Share of the training images that is held out for validation."""
    validation_frames: int = 0
    """Number of whole validation images that are measured at their own size, spread over all of them, whatever `view`
    says; 0: images as `view` says."""
    blur: BlurConfig = field(default_factory=BlurConfig)
    """Synthetic blur of sharp images that have no blurred partner."""

    def __post_init__(self) -> None:
        check_types(self)
        if min(self.size_px) < SSIM_MIN_PX:
            raise ValueError(f"size_px must be at least {SSIM_MIN_PX}, got {self.size_px}")
        if not 1 <= self.crops <= MAX_CROPS:
            raise ValueError(f"crops must be from 1 to {MAX_CROPS}, got {self.crops}")
        self._check_view()
        self._check_progressive()
        if self.shares and min(self.shares) <= 0:
            raise ValueError(f"shares must be positive, got {self.shares}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {self.scale}")
        for name in ("rotation_deg", "validation_frames"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"validation_share must lie between 0 and 1, got {self.validation_share}")

    def _check_progressive(self) -> None:
        shares = [share for share, _ in self.progressive]
        if shares != sorted(shares) or not all(0 < share < 1 for share in shares):
            raise ValueError(f"progressive needs shares between 0 and 1 that rise, got {self.progressive}")
        for _, side_px in self.progressive:
            if side_px < SSIM_MIN_PX or self.size_px[0] % side_px:
                limits = f"divide size_px {self.size_px} and be at least {SSIM_MIN_PX}"
                raise ValueError(f"sides in progressive must {limits}, got {side_px}")

    def side_at(self, share: float) -> int:
        """Return the side of the squares, in pixels, after a share of all steps, from 0 to 1."""
        return next((side_px for end, side_px in self.progressive if share < end), self.size_px[0])

    @property
    def smallest_px(self) -> int:
        """Smallest width or height of an image in training."""
        return min(*self.size_px, *(side_px for _, side_px in self.progressive))

    def _check_view(self) -> None:
        if self.view == "crop" and self.size_px[0] != self.size_px[1]:
            raise ValueError(f"crops are square, got size_px {self.size_px}")
        for name in ("quarter_turns", "shares", "fresh_crops", "progressive"):
            if self.view != "crop" and getattr(self, name):
                raise ValueError(f"{name} need square crops: --set data.view=crop")
        if self.blur.curriculum_epochs and self.view == "crop" and not self.fresh_crops:
            raise ValueError(
                "blur.curriculum_epochs needs images that are blurred in each epoch: --set data.fresh_crops=True"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a run. Together with the images, they determine its result."""

    generator: str
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the generator's class (`train.models`)."""
    init: str | None = None
    """Checkpoint that the generator is initialised from; None: random weights."""
    half_init: str | None = None
    """Checkpoint of an `edge` that the pass at half the resolution of an `edge` begins as (`options.half_pass`); None:
    `init` if the pass has the size of the network, else random weights."""
    trained_parts: tuple[str, ...] = ()
    """Beginnings of the names of the generator's weights that are trained, such as `tail`; the others keep their
    values. Empty: all are trained."""
    teacher: str | None = None
    """Checkpoint of a better generator, whose output is learned from too (`losses.distillation`)."""
    normalisation: Normalisation = "batch"
    """Normalisation in the discriminator, which exists if `losses.adversarial` is not 0."""
    gan: GanConfig = field(default_factory=GanConfig)
    """Kind and training of the discriminator."""
    losses: LossConfig
    data: DataConfig = field(default_factory=DataConfig)
    seed: int = 0
    batch: int
    """Number of pairs whose activations are in memory at the same time, in one process."""
    accumulate_steps: int = 1
    """Number of such batches whose gradients one step adds up: a step takes `batch * accumulate_steps` pairs."""
    epochs: int
    max_steps: int | None = None
    """Step after which the run ends even if epochs are left."""
    optimizer: Literal["adam", "adamw"] = "adam"
    """Optimizer of both networks; `adam` adds the weight decay to the gradient (L2), `adamw` does not."""
    learning_rate: float
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "plateau", "cyclic"] = "constant"
    """Learning-rate schedule. `cosine`: the rate falls to 0 along half a cosine; `plateau`: it is halved after more
    than `patience_epochs` without a better validation loss; `cyclic`: it rises and falls linearly between its value and
    `cycle_low` of it, again and again (Smith 2017)."""
    cycle_steps: int = 2000
    """Number of steps of a cycle of `cyclic`, of which the first half rises."""
    cycle_low: float = 0.25
    """Lowest learning rate of `cyclic`, as a share of the highest."""
    warmup_steps: int = 0
    """Number of steps in which the learning rate rises linearly to its value."""
    patience_epochs: int = 5
    tenth_every_epochs: int = 0
    """Number of epochs after which the learning rate is divided by ten, again and again; 0: never."""
    early_stopping_epochs: int = 0
    """Number of epochs without a better validation loss after which the run stops; 0: never."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient of a network; 0: not clipped."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the generator, which is validated and published; 0: no average."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Precision of the forward pass of both networks; weights and losses stay in float32. `auto`: bf16 on devices that
    are faster in it, else fp32."""
    channels_last: bool = False
    """Keep tensors in the memory layout NHWC."""
    checkpoint_activations: bool = False
    """Compute activations of the generator again in the backward pass instead of keeping them: less memory, more time
    (Chen et al. 2016)."""
    compile: bool = False
    """Use `torch.compile` for the generator."""
    publish: Literal["auto", "last", "best:content_loss", "best:psnr_db", "best:ssim", "best:lpips"] = "auto"
    """Epoch whose generator is published: the last, or the best by a validation score. `auto`: the last if there is an
    adversarial loss, which no validation score contains; else the best by the content loss."""
    keep_every_epochs: int = 0
    """Number of epochs after which the generator is published in a folder of its own too; 0: never."""
    save_steps: int = 500
    """Number of steps between two saves of the state; it is also saved after each epoch."""
    metrics_steps: int = 1
    """Number of steps between two measurements of PSNR and SSIM of the training images."""
    log_steps: int = 100
    """Number of steps between two entries of losses, discriminator outputs and gradient norms in TensorBoard; 0: none.
    Each is the mean over these steps."""
    validation_steps: int = 0
    """Number of steps between two validations within an epoch; 0: only at its end."""
    image_steps: int = 1000
    """Number of steps between two sets of sample images in TensorBoard, from the validation images; 0: none."""
    workers: int = 2
    """Number of processes that read images; crops need none."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("batch", "accumulate_steps", "epochs", "save_steps", "metrics_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        not_negative = ("learning_rate", "weight_decay", "gradient_clip", "patience_epochs", "tenth_every_epochs")
        intervals = ("early_stopping_epochs", "keep_every_epochs", "log_steps", "validation_steps", "image_steps")
        for name in ("seed", "warmup_steps", "workers", *intervals, *not_negative):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        self._check_schedule()
        if self.losses.adversarial:
            self.gan.check_kind(self.losses.adversarial_kind, self.normalisation)

    def _check_schedule(self) -> None:
        if self.cycle_steps < 2:
            raise ValueError(f"cycle_steps must be at least 2, got {self.cycle_steps}")
        if not 0 <= self.cycle_low < 1:
            raise ValueError(f"cycle_low must be at least 0 and below 1, got {self.cycle_low}")
        if self.tenth_every_epochs and (self.schedule in {"cosine", "cyclic"} or self.warmup_steps):
            raise ValueError("tenth_every_epochs does not go with the cosine and cyclic schedules or warmup_steps")
        if self.schedule in {"plateau", "cyclic"} and self.warmup_steps:
            raise ValueError(f"warmup_steps do not go with the {self.schedule} schedule")

    @property
    def step_pairs(self) -> int:
        """Number of pairs of one step in one process."""
        return self.batch * self.accumulate_steps

    @property
    def published_score(self) -> str:
        """Name of the validation score by which the published epoch is chosen; empty for the last epoch."""
        is_last = self.publish == "last" or (self.publish == "auto" and self.losses.adversarial > 0)
        return "" if is_last else self.publish.removeprefix("best:").replace("auto", "content_loss")

    @property
    def needs_lpips(self) -> bool:
        """Whether LPIPS is a loss, chooses the published epoch, or is logged because its weights are given."""
        return bool(self.losses.lpips or self.losses.lpips_weights or self.published_score == "lpips")

    def to_json(self) -> str:
        """Return all values as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Return the recipe that `to_json` wrote; raises ValueError for any other text."""
        return build_config(cls, parse_json(text))


def apply_overrides(config: Config, overrides: list[str], *, prefix: str = "") -> Config:
    """Return a copy of a dataclass with `KEY=VALUE` overrides, such as `data.blur.KEY=VALUE` for nested ones.

    All overrides of one dataclass are applied before it is checked. `prefix`: what the user typed before each override,
    such as `data.`. Raises ValueError for an unknown key or a value that is not allowed.
    """
    assert dataclasses.is_dataclass(config)
    assert not isinstance(config, type)
    own: dict[str, Any] = {}
    nested: dict[str, list[str]] = {}
    known = [field.name for field in dataclasses.fields(config)]
    for override in overrides:
        name, equals, text = override.partition("=")
        head, dot, rest = name.partition(".")
        if not equals or head not in known:
            problem = f"unknown setting {prefix}{head}" if equals else "no value, as in batch=4"
            keys = ", ".join(f"{prefix}{name}" for name in known)
            raise ValueError(f"--set {prefix}{override}: {problem}; known: {keys}")
        if not dot:
            own[name] = parse_value(text)
        elif dataclasses.is_dataclass(getattr(config, head)):
            nested.setdefault(head, []).append(f"{rest}={text}")
        elif isinstance(getattr(config, head), dict):
            own[head] = {**own.get(head, getattr(config, head)), rest: parse_value(text)}
        else:
            raise ValueError(f"--set {prefix}{override}: {prefix}{head} has no parts")
    parts = {
        name: apply_overrides(getattr(config, name), texts, prefix=f"{prefix}{name}.") for name, texts in nested.items()
    }
    return dataclasses.replace(config, **own, **parts)
