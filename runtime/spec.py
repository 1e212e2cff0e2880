"""The description of an engine that is stored with it: origin, size range and measured quality."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from runtime.json_text import parse_json, require_field_types

Precision = Literal["fp32", "fp16", "int8", "int8_cpu", "unknown"]
"""Numeric precision of an engine; `int8` is for NVIDIA GPUs, `int8_cpu` for CPUs."""

PixelFormat = Literal["bgr", "yuv420"]
"""Form of frames: `bgr` is uint8[N, H, W, 3], full range; `yuv420` is uint8[N, 3 H / 2, W], the planes of I420."""
PIXEL_FORMATS: tuple[PixelFormat, ...] = get_args(PixelFormat)

FLOAT_NCHW = "float_nchw"
"""End of the names of exports for other programs: float32[1, 3, H, W] RGB in 0..1. This toolkit does not run them."""

METADATA_KEY = "deblur_spec"
"""Key of the JSON in an ONNX file's `metadata_props`."""


def frame_shape(pixels: PixelFormat, *, width: int, height: int) -> tuple[int, ...]:
    """Return the shape of one frame in a batch; width and height are even for `yuv420`."""
    return (height, width, 3) if pixels == "bgr" else (height * 3 // 2, width)


def variant_name(precision: Precision, pixels: PixelFormat) -> str:
    """Return the end of the names of engines with this precision and form of frames."""
    return precision if pixels == "bgr" else f"{precision}_{pixels}"


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """Origin, size range and measured quality of an engine.

    An ONNX file stores it as JSON under `METADATA_KEY`. A file without it still runs if its inputs and outputs match
    the contract; then only the name and the size range are known.
    """

    name: str
    generator: str = "unknown"
    """Name of the network in `train`, with its options."""
    precision: Precision = "unknown"
    pixels: PixelFormat = "bgr"
    """Form of the frames that it takes and returns."""
    height: tuple[int, int] = (1, 65_535)
    """Smallest and largest frame height in pixels."""
    width: tuple[int, int] = (1, 65_535)
    """Smallest and largest frame width in pixels."""
    licence: str | None = None
    """Licence of the weights, as stated at the export."""
    macs_per_pixel: float | None = None
    """Multiply-accumulates of its convolutions and matrix products per pixel."""
    weights_sha256: str | None = None
    """SHA-256 of the published weights that the engine was exported from."""
    exported_with: str | None = None
    """Packages of the export with their versions, and the ONNX opset."""
    core_sha256: str | None = None
    """SHA-256 of the float32 ONNX network that the engine was made from."""
    calibration_sha256: str | None = None
    """SHA-256 of the frames and the settings that an INT8 engine was calibrated with."""
    float_layers: int | None = None
    """Number of convolutions that an INT8 engine computes in float or half precision."""
    agreement_db: float | None = None
    """PSNR in dB of its 8-bit output against the output of the float32 network, on the frames of the export."""
    loss_db: float | None = None
    """PSNR in dB that it loses against the float32 network on `measured_on`; negative if it gains."""
    budget_db: float | None = None
    """Largest allowed `loss_db`."""
    forced: bool = False
    """Whether it was published with `--force` although `loss_db` exceeds `budget_db`."""
    blurred_psnr_db: float | None = None
    """PSNR in dB of the blurred input on `measured_on`."""
    psnr_db: float | None = None
    """PSNR in dB of its output on `measured_on`."""
    measured_on: str | None = None
    """Name of the data set for `loss_db`, `psnr_db` and `blurred_psnr_db`."""

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {get_args(Precision)}, got {self.precision!r}")
        if self.pixels not in PIXEL_FORMATS:
            raise ValueError(f"pixels must be one of {PIXEL_FORMATS}, got {self.pixels!r}")
        require_field_types(self)
        for name in ("height", "width"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ValueError(f"{name} must be (smallest, largest) with 1 <= smallest <= largest, got {(low, high)}")

    @property
    def variant(self) -> str:
        """Precision and form of the frames, as at the end of file names: `int8_cpu` or `int8_cpu_yuv420`."""
        return variant_name(self.precision, self.pixels)

    def accepts(self, *, width: int, height: int) -> bool:
        """Return whether frames of this size are within the size range of the engine."""
        return self.width[0] <= width <= self.width[1] and self.height[0] <= height <= self.height[1]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the JSON text that is stored in an ONNX file."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> EngineSpec:
        """Return the spec in a JSON text of `to_json`; fields of later versions are ignored.

        Raises ValueError if the text is not a JSON object of these fields or a value is out of range.
        """
        values = parse_json(text)
        if not isinstance(values, dict):
            raise ValueError(f"expected a JSON object, got {type(values).__name__}")  # noqa: TRY004 - a bad value, as documented
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error
