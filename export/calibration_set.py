"""Calibration frames of an export, as images and as inputs of the core."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import onnx

from export.network import Network
from export.quantization.calibration import compute_core_inputs, read_frames, select_frames
from export.quantization.precision import Nchw
from export.step_cache import compute_digest
from runtime.frame import Pixels

CALIBRATION_FRAMES = 16


class CalibrationSet:
    """Frames selected for calibration; they are read at the first use. Raises what `read_frames` raises."""

    def __init__(self, path: Path, network: Network, core: onnx.ModelProto) -> None:
        self._path, self._network, self._core = path, network, core

    @cached_property
    def frames(self) -> list[Pixels]:
        """Selected frames, uint8[H, W, 3] BGR."""
        return select_frames(read_frames(self._path), CALIBRATION_FRAMES)

    @cached_property
    def sha256(self) -> str:
        return compute_digest(*(frame.tobytes() for frame in self.frames))

    def compute_inputs(self) -> list[Nchw]:
        """Return the frames as the core receives them, float32[1, C, H, W] each."""
        return compute_core_inputs(self._network.wrap(self._core), self._core.graph.input[0].name, self.frames)
