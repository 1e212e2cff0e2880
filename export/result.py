"""Result of an export: engines, plans, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.verify import Quality, Score
from runtime.sidecar import Sidecar, sidecar_path
from runtime.spec import FLOAT_NCHW, EngineSpec


@dataclass(frozen=True)
class Engine:
    """One engine of an export."""

    content: bytes
    """The ONNX file."""
    spec: EngineSpec
    score: Score
    latency_ms: float
    """Median on a frame of 640x360, on ONNX Runtime's CPU provider."""
    float_nchw: bytes | None = None
    """The ONNX file with the interface `float_nchw`, if it was asked for."""


@dataclass(frozen=True)
class Plan:
    """One plan of an export, with its sidecar."""

    content: bytes
    sidecar: Sidecar


@dataclass(frozen=True)
class Calibration:
    """Results of calibration and of the search for layers that stay in float, as PSNR in dB."""

    method: str
    agreements_db: dict[str, float]
    """PSNR of a completely quantised core against the float core by calibration method, on frames of the calibration
    data; empty if only one method was tried."""
    layer_losses_db: dict[str, float]
    """Loss of each layer when only that layer is quantised, the largest first; empty if it was not measured."""
    int8_per_channel: bool | None = None
    """Whether weights of the layout `int8` have a scale for each output channel instead of one; None without it."""
    int8_half_residual: bool | None = None
    """Whether the residual of the layout `int8` has half precision; None without it."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """Engines and plans by `EngineSpec.variant`, and measurements of the network."""

    engines: dict[str, Engine]
    plans: dict[str, Plan]
    blurred: Quality
    """Quality of the blurred images of the pairs, without restoration."""
    macs_before: float
    """Multiply-accumulates per pixel of the trained network."""
    macs_after: float
    """Multiply-accumulates per pixel after `fuse_convolutions`."""
    tile_losses_db: dict[int, float]
    """PSNR in dB that the float engine loses by restoring images in tiles, by the overlap in pixels."""
    calibration: Calibration | None
    """None without INT8 engines."""
    notes: tuple[str, ...] = ()
    """Findings about a foreign ONNX file, one line each."""
    computed_steps: list[str]
    """Names of the steps that were not in the cache."""

    def list_files(self) -> dict[str, bytes]:
        """Return the files to publish: engines, exports for other programs, plans and sidecars, by file name."""
        files: dict[str, bytes] = {}
        for engine in self.engines.values():
            files[f"{engine.spec.name}.onnx"] = engine.content
            if engine.float_nchw:
                files[f"{engine.spec.name}_{FLOAT_NCHW}.onnx"] = engine.float_nchw
        for plan in self.plans.values():
            path = Path(plan.sidecar.onnx).with_suffix(".plan")
            files |= {path.name: plan.content, sidecar_path(path).name: plan.sidecar.to_json().encode()}
        return files
