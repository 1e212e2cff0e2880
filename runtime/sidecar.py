"""What stands beside a plan: `NAME.plan.json`, so that a plan stays a bare plan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from runtime.errors import UnfitPlanError
from runtime.spec import EngineSpec

Flavour = Literal["tensorrt", "tensorrt-rtx"]


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """Where a plan comes from, and where it runs."""

    engine: EngineSpec
    """Of the ONNX file: what it loses in dB was measured there. Height and width are the plan's own range."""
    batch: tuple[int, int]
    """Least and greatest number of frames at once."""
    flavour: Flavour
    version: str
    """Of TensorRT or TensorRT-RTX; a plan runs on no other."""
    compute_capabilities: tuple[str, ...]
    """Of the GPUs that it runs on, such as 8.7."""
    onnx: str
    """Name of the ONNX file that it was built from, beside the plan."""
    onnx_sha256: str
    plan_sha256: str
    opt_size: tuple[int, int] = (1280, 720)
    """Width and height that it is fastest at."""
    workspace_mib: int | None = None
    calibrator: str | None = None
    """What quantised it while it was built; then it was measured nowhere."""
    dla_core: int | None = None
    kernels: int | None = None
    """What the builder made of the network, where it says so."""
    pixel_kernels: int | None = None
    """Those that convert pixels and do nothing else but join in."""
    convolutions: dict[str, int] = field(default_factory=dict)
    """Number of convolutions by the type that they read: Float, Half, Int8."""

    def __post_init__(self) -> None:
        if self.flavour not in get_args(Flavour):
            raise ValueError(f"flavour must be one of {get_args(Flavour)}, got {self.flavour!r}")
        if not self.onnx or Path(self.onnx).name != self.onnx:
            raise ValueError(f"onnx must be the name of a file beside the plan, got {self.onnx!r}")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def rebuild(self, plan: Path, *, compute_capability: str | None = None) -> list[str]:
        """Arguments of python that build a plan like this one from the ONNX file beside it."""
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
        if self.calibrator:  # frames of the user's own, which nobody else knows
            options += [("--calibrator", self.calibrator), ("--calib", "FRAMES")]
        given = [text for name, value in options if value is not None for text in (name, str(value))]
        onnx = str(plan.with_name(self.onnx))
        return ["-m", "export.plan", onnx, "--out", str(plan), "--target", self.flavour, *given]

    @classmethod
    def from_json(cls, text: str) -> Sidecar:
        """The inverse of `to_json`; fields of later versions are passed over. Raises ValueError."""
        values: Any = json.loads(text)
        if not isinstance(values, dict) or not isinstance(values.get("engine"), dict):
            raise ValueError("expected a JSON object with an engine in it")  # noqa: TRY004 - a bad value
        known = {each.name for each in dataclasses.fields(cls)}
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known}
        values["engine"] = EngineSpec.from_json(json.dumps(values["engine"]))
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error


def sidecar_path(plan: Path) -> Path:
    return plan.with_name(plan.name + ".json")


def read_sidecar(plan: Path, content: bytes) -> Sidecar:
    """The sidecar of a plan whose bytes are `content`; raises UnfitPlanError if it is missing or does not match."""
    path = sidecar_path(plan)
    again = ["-m", "export.plan", str(plan.with_suffix(".onnx")), "--out", str(plan)]
    if find_spec("tensorrt") is None:
        again += ["--target", "tensorrt-rtx"]
    foreign = content[4:5] == b"{" and int.from_bytes(content[:4], "little") < len(content)
    if foreign:
        raise UnfitPlanError("plan has the metadata of another tool in front of it", plan, rebuild=again)
    try:
        sidecar = Sidecar.from_json(path.read_text())
    except FileNotFoundError as error:
        raise UnfitPlanError("plan has no sidecar beside it", path, rebuild=again) from error
    except (OSError, ValueError) as error:
        raise UnfitPlanError(f"sidecar cannot be read ({error})", path, rebuild=again) from error
    if hashlib.sha256(content).hexdigest() != sidecar.plan_sha256:
        what = "plan is not the one that its sidecar describes (SHA-256 differs)"
        raise UnfitPlanError(what, plan, rebuild=sidecar.rebuild(plan))
    return sidecar
