"""Settings of an export."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from export.foreign.options import ForeignOptions
from export.plan.config import PlanConfig
from runtime.spec import PixelFormat, Precision

Interface = Literal["float_nchw"]
"""Form of the exports for other programs: `float_nchw` is float32[1, 3, H, W] RGB in 0..1."""

Method = Literal["minmax", "entropy", "percentile"]
"""Calibration method of ONNX Runtime."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Engines to export, data to calibrate and measure them with, and the loss that they may have."""

    name: str = "deblur"
    """Name of the engines, in front of their precision."""
    licence: str | None = None
    """Licence of the weights, for the specs of the engines."""
    network: str = "auto"
    """Name of the network that the weights must be of, or `auto`."""
    network_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the network to change, such as `pooling_px`."""
    foreign: ForeignOptions = field(default_factory=ForeignOptions)
    """Statements about a foreign ONNX file."""
    work_scale: int = 1
    """1, or 2 for a network that works at half the resolution."""
    precisions: tuple[Precision, ...]
    pixels: tuple[PixelFormat, ...] = ("bgr", "yuv420")
    """Forms of frames that there are engines for."""
    interfaces: tuple[Interface, ...] = ()
    """Further exports of the engines for BGR frames, for other programs."""
    calibration: Path
    """Folder of images, or a video."""
    calibration_method: Method | Literal["auto"] = "auto"
    """`auto` tries all methods and uses the one that agrees best with the float network on the worst frame."""
    pairs: Path
    """Folder with `blur/` and `sharp/`."""
    int8_budget_db: float = 0.30
    """PSNR in dB that an INT8 engine may lose against the float network."""
    fp16_budget_db: float = 0.10
    """PSNR in dB that an FP16 engine may lose against the float network."""
    force: bool = False
    """Publish engines that exceed their budget or are worse than those that they replace."""
    plan: PlanConfig | None = None
    """Settings of the plans to build from the engines; None: no plans."""
    timing_cache: Path | None = None
    """File for TensorRT's measurements, reused by later exports."""
