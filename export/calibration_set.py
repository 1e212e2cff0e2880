"""Calibration frames of an export, as images and as inputs of the core, and the frames that compare the methods."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import onnx

from export.graph.measure import Nchw
from export.network import Network
from export.quantization.calibration import compute_core_inputs, read_frames, select_frames
from export.step_cache import compute_digest
from runtime.frame import Pixels

CALIBRATION_FRAMES = 16
COMPARISON_FRAMES = 16
"""Largest number of frames that calibration methods are compared on."""
MIN_COMPARISON_FRAMES = 4
"""With fewer frames left, the methods are compared on all frames, those of the calibration too."""


class CalibrationSet:
    """Frames selected for calibration, and others to compare methods on, from one folder or video.

    They are read at the first use. Raises what `read_frames` raises.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def frames(self) -> list[Pixels]:
        """Frames selected for calibration, uint8[H, W, 3] BGR."""
        return self._parts[0]

    @property
    def comparison_frames(self) -> list[Pixels]:
        """Frames to compare calibration methods on, uint8[H, W, 3] BGR: not those that the export reports on."""
        return self._parts[1]

    @cached_property
    def _parts(self) -> tuple[list[Pixels], list[Pixels]]:
        frames = read_frames(self._path)
        selected = select_frames(frames, CALIBRATION_FRAMES)
        others = [frame for frame in frames if not any(frame is one for one in selected)]
        enough = others if len(others) >= MIN_COMPARISON_FRAMES else frames
        return selected, select_frames(enough, COMPARISON_FRAMES)

    @cached_property
    def sha256(self) -> str:
        """Digest of the calibration frames."""
        return _compute_frames_digest(self.frames)

    @cached_property
    def comparison_sha256(self) -> str:
        """Digest of the frames to compare methods on."""
        return _compute_frames_digest(self.comparison_frames)

    def compute_inputs(self, network: Network, core: onnx.ModelProto) -> list[Nchw]:
        """Return the frames as the core of a network receives them, float32[1, C, H, W] each."""
        frames = [network.adapt(network.fit(frame)) for frame in self.frames]
        return compute_core_inputs(network.wrap(core), core.graph.input[0].name, frames)


def _compute_frames_digest(frames: list[Pixels]) -> str:
    return compute_digest(*(frame.tobytes() for frame in frames))
