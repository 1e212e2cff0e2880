"""What an engine says about itself."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

Precision = Literal["fp32", "fp16", "int8", "int8_cpu", "unknown"]

METADATA_KEY = "deblur_spec"
"""Key of the JSON in an ONNX file's `metadata_props`."""


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Where an engine comes from, what it takes, and what it was measured to give.

    Stored as JSON under `METADATA_KEY` in an ONNX file. A file without it still runs if its
    inputs and outputs fit the contract; then only the name and the ranges are known.
    """

    name: str
    generator: str = "unknown"
    """Name of the network, as `train` knows it, with its options."""
    precision: Precision = "unknown"
    height: tuple[int, int] = (1, 65_535)
    """Least and greatest frame height in pixels."""
    width: tuple[int, int] = (1, 65_535)
    weights_sha256: str | None = None
    """Of the published weights that it was exported from."""
    exported_with: str | None = None
    """Packages and versions, and the ONNX opset."""
    core_sha256: str | None = None
    """Of the float network in ONNX that it was made from."""
    calibration_sha256: str | None = None
    """Of the frames that an INT8 engine was calibrated with, and how."""
    float_layers: int | None = None
    """Convolutions that an INT8 engine computes in float."""
    agreement_db: float | None = None
    """PSNR of its 8-bit output against the float network's, on the frames of the export."""
    loss_db: float | None = None
    """PSNR that it loses against the float network on `measured_on`; negative where it gains."""
    budget_db: float | None = None
    """What it may lose."""
    forced: bool = False
    """Published although it loses more."""
    blurred_psnr_db: float | None = None
    """PSNR of the blurred input on `measured_on`."""
    psnr_db: float | None = None
    """PSNR of its output on `measured_on`."""
    measured_on: str | None = None

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, got {self.precision!r}")
        for name in ("height", "width"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"{name} must be (least, greatest) with 1 <= least <= greatest, got {(low, high)}")

    def accepts(self, *, width: int, height: int) -> bool:
        """Whether frames of this size are inside the engine's range."""
        return self.width[0] <= width <= self.width[1] and self.height[0] <= height <= self.height[1]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> EngineSpec:
        """The inverse of `to_json`; fields of later versions are passed over.

        Raises ValueError if the text is not such JSON or a value is out of range.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object, got {type(values).__name__}")  # noqa: TRY004 - a bad value, as documented
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error
