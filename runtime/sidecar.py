"""The description of a TensorRT plan, in a JSON file `NAME.plan.json` next to `NAME.plan`.

The plan file itself holds nothing but the plan, so that other tools can load it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from runtime.commands import PLAN_BUILDER
from runtime.errors import UnfitPlanError
from runtime.json_text import parse_json, require_field_types
from runtime.spec import EngineSpec

Flavour = Literal["tensorrt", "tensorrt-rtx"]
"""Library that builds and runs a plan."""


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Origin of a plan, and the machines that it runs on."""

    engine: EngineSpec
    """Spec of the ONNX file, with the size range of the plan; `loss_db` was measured with the ONNX file."""
    batch: tuple[int, int]
    """Smallest and largest number of frames in a batch."""
    flavour: Flavour
    version: str
    """Version of TensorRT or TensorRT-RTX that built the plan; no other version runs it."""
    compute_capabilities: tuple[str, ...]
    """Compute capabilities of the GPUs that the plan runs on, such as 8.7."""
    onnx: str
    """Name of the ONNX file that the plan was built from, in the same folder."""
    onnx_sha256: str
    plan_sha256: str
    opt_size: tuple[int, int] = (1280, 720)
    """Width and height that the plan is optimised for."""
    workspace_mib: int | None = None
    """Limit of scratch memory for the builder, in MiB."""
    calibrator: str | None = None
    """TensorRT calibrator that quantised the plan while it was built; the loss of such a plan was not measured."""
    dla_core: int | None = None
    """Core of the deep learning accelerator that runs the plan; None for the GPU."""
    kernels: int | None = None
    """Number of kernels in the plan, if the builder reports it."""
    pixel_kernels: int | None = None
    """Number of kernels that read or write 8-bit frames, or do a part of that conversion."""
    reformats: int | None = None
    """Number of kernels that only transpose, copy or convert values between two layers."""
    convolutions: dict[str, int] = field(default_factory=dict)
    """Number of convolutions and matrix products by the type of their input: Float, Half, Int8."""
    scratch_bytes: int | None = None
    """Bytes of scratch memory on the GPU for the largest frames, if the builder reports them."""

    def __post_init__(self) -> None:
        if self.flavour not in get_args(Flavour):
            raise ValueError(f"flavour must be one of {get_args(Flavour)}, got {self.flavour!r}")
        require_field_types(self)
        if not self.onnx or Path(self.onnx).name != self.onnx:
            raise ValueError(f"onnx must be the name of a file in the folder of the plan, got {self.onnx!r}")

    def to_json(self) -> str:
        """Return the content of the sidecar file."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def rebuild_arguments(self, plan: Path, *, compute_capability: str | None = None) -> list[str]:
        """Return the arguments of `python` that build a plan like this one from the ONNX file in its folder.

        `compute_capability`: of the GPU that the new plan is for; only TensorRT-RTX uses it.
        """
        sizes = [f"{self.engine.width[end]}x{self.engine.height[end]}" for end in (0, 1)]
        sizes.insert(1, f"{self.opt_size[0]}x{self.opt_size[1]}")
        names = ("--min-size", "--opt-size", "--max-size")
        options: list[tuple[str, object]] = [("--size", sizes[0])]
        if len(set(sizes)) > 1:
            options = list(zip(names, sizes, strict=True))
        options.append(("--batch", self.batch[1] if self.batch[1] > 1 else None))
        options += [("--dla", self.dla_core), ("--workspace-mib", self.workspace_mib)]
        if self.flavour == "tensorrt-rtx":
            options.append(("--compute-capability", compute_capability))
        if self.calibrator:  # the user replaces FRAMES by the folder of calibration frames, which is not recorded
            options += [("--calibrator", self.calibrator), ("--calib", "FRAMES")]
        arguments = [text for name, value in options if value is not None for text in (name, str(value))]
        onnx = str(plan.with_name(self.onnx))
        return ["-m", PLAN_BUILDER, onnx, "--out", str(plan), "--target", self.flavour, *arguments]

    @classmethod
    def from_json(cls, text: str) -> Sidecar:
        """Return the sidecar in the content of its file; raises ValueError. Fields of later versions are ignored."""
        values: Any = parse_json(text)
        if not isinstance(values, dict) or not isinstance(values.get("engine"), dict):
            raise ValueError("expected a JSON object with an engine in it")  # noqa: TRY004 - a bad value
        known = {field.name for field in dataclasses.fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known}
        values["engine"] = EngineSpec.from_json(json.dumps(values["engine"]))
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error


def sidecar_path(plan: Path) -> Path:
    """Return the path of the sidecar file of a plan."""
    return plan.with_name(plan.name + ".json")


def read_sidecar(plan: Path, content: bytes) -> Sidecar:
    """Return the sidecar of a plan whose bytes are `content`.

    Raises UnfitPlanError if the sidecar is missing or damaged, or if the SHA-256 of `content` differs from it.
    """
    path = sidecar_path(plan)
    rebuild = ["-m", PLAN_BUILDER, str(plan.with_suffix(".onnx")), "--out", str(plan)]
    if find_spec("tensorrt") is None:
        rebuild += ["--target", "tensorrt-rtx"]
    # Some tools write the length of a JSON text and the text itself in front of the plan.
    has_foreign_metadata = content[4:5] == b"{" and int.from_bytes(content[:4], "little") < len(content)
    if has_foreign_metadata:
        raise UnfitPlanError("plan has the metadata of another tool in front of it", plan, rebuild=rebuild)
    try:
        sidecar = Sidecar.from_json(path.read_text())
    except FileNotFoundError as error:
        raise UnfitPlanError("plan has no sidecar file", path, rebuild=rebuild) from error
    except (OSError, ValueError) as error:
        raise UnfitPlanError(f"sidecar cannot be read ({error})", path, rebuild=rebuild) from error
    if hashlib.sha256(content).hexdigest() != sidecar.plan_sha256:
        what = "plan is not the one that its sidecar describes (SHA-256 differs)"
        raise UnfitPlanError(what, plan, rebuild=sidecar.rebuild_arguments(plan))
    return sidecar
