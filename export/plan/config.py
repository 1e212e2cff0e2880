"""Settings of a plan: frame sizes, target machine, and limits of the builder."""

from __future__ import annotations

from dataclasses import dataclass

from export.plan.calibrator import Algorithm
from runtime.errors import UsageError
from runtime.frame import Size
from runtime.sidecar import Flavour


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Frame sizes and machine that a plan is built for; raises UsageError for settings that contradict each other."""

    flavour: Flavour = "tensorrt"
    min_size: Size = (64, 64)
    """Smallest width and height in pixels."""
    opt_size: Size = (1280, 720)
    """Width and height that the plan is optimised for."""
    max_size: Size = (1920, 1088)
    """Largest width and height in pixels."""
    batch: int = 1
    """Largest number of frames per call, and the number that the plan is optimised for."""
    workspace_mib: int | None = None
    """Limit of the builder's scratch memory in MiB; None: all memory of the device."""
    dla_core: int | None = None
    """Deep-learning accelerator of a Jetson Orin, for the layers that it can run; the GPU runs the others."""
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT-RTX: compute capabilities of the GPUs to build for, such as 8.9; empty: all known ones from 8.0 on.

    A plan that also runs on 7.5 computes INT8 convolutions in float. A TensorRT plan is for the GPU that builds it.
    """
    calibrator: Algorithm | None = None
    """TensorRT up to 10: quantise an FP32 engine while building it, instead of using the engine's Q/DQ nodes."""

    @property
    def is_static(self) -> bool:
        """Whether all frames have one size."""
        return self.min_size == self.opt_size == self.max_size

    def require_even_sizes(self, hint: str) -> None:
        """Raise UsageError with `hint` if a width or height is odd, which planes of 4:2:0 cannot have."""
        if any(side % 2 for size in (self.min_size, self.opt_size, self.max_size) for side in size):
            raise UsageError("planes of 4:2:0 need even sizes", hint=hint)

    def __post_init__(self) -> None:
        for axis, name in enumerate(("width", "height")):
            sizes = [size[axis] for size in (self.min_size, self.opt_size, self.max_size)]
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise UsageError(
                    f"{name} must not decrease from --min-size to --opt-size to --max-size, got {sizes}",
                    hint="give all three, or --size",
                )
        if self.batch < 1:
            raise UsageError(f"batch must be at least 1, got {self.batch}", hint="leave out --batch")
        if self.dla_core is not None and not self.is_static:
            raise UsageError("DLA needs frames of one size", hint="give --size")
        if self.calibrator and self.batch > 1:
            raise UsageError("calibration takes one frame at a time", hint="leave out --batch")
        if self.compute_capabilities and self.flavour == "tensorrt":
            raise UsageError("TensorRT builds for the GPU that it runs on", hint="leave out --compute-capability")
        if self.flavour == "tensorrt-rtx" and (self.dla_core is not None or self.calibrator):
            raise UsageError("TensorRT-RTX has neither DLA nor calibrators", hint="leave out --dla and --calibrator")
