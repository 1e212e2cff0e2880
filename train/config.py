"""What a training run is made of: one frozen dataclass, overridable from the command line."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from train.blur import BlurConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The `edge` recipe: L1 on synthetic blur, AdamW, cosine rate, exponential moving average."""

    generator: str = "edge"
    options: dict[str, int] = field(default_factory=dict)
    """Options of the generator (`train.models`)."""
    seed: int = 0
    steps: int = 25_000
    batch: int = 16
    crop_px: int = 128
    crops: int = 32_000
    """Blurred and sharp crops that are made once, before the first step."""
    scale: tuple[float, float] = (0.5, 1.0)
    """Photographs are reduced by a factor from this range: sharper, less noisy, more varied."""
    learning_rate: float = 6e-4
    warmup_steps: int = 500
    weight_decay: float = 1e-4
    gradient_clip: float = 0.1
    ema_decay: float = 0.999
    precision: Literal["fp32", "bf16"] = "bf16"
    """Precision of the forward pass; weights and optimizer stay in float32."""
    blur: BlurConfig = field(default_factory=BlurConfig)
    report_every: int = 500
    """Steps between two validations, each followed by a checkpoint."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop_px", "crops", "report_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale must be (low, high) with 0 < low <= high <= 1, got {self.scale}")
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be fp32 or bf16, got {self.precision!r}")

    def to_json(self) -> str:
        """Every value, as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """The inverse of `to_json`; raises ValueError or TypeError for anything else."""
        values = json.loads(text)
        blur = BlurConfig(**_tuples(values.pop("blur")))
        return cls(**_tuples(values), blur=blur)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON has lists where the dataclasses have tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
