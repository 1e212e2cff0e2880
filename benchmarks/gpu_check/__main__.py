"""`make gpu-check`: does this NVIDIA machine build, run and keep what the engines promise? One page to paste.

Builds plans from ONNX engines, runs the tests that need a GPU, compares every plan with ONNX
Runtime on the CPU frame by frame, and measures latency and throughput.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.assets import DEMO_BLURRED
from benchmarks.harness.scenarios import Load, offline, single_stream, warm_up
from benchmarks.harness.statistics import percentile
from export.plan.builder import PlanConfig, plan_from_onnx, summary
from runtime.cli import report_error
from runtime.engines import BUNDLED, open_backend
from runtime.engines.cuda import Device, probe
from runtime.engines.nvidia import import_tensorrt
from runtime.engines.onnx import inspect
from runtime.errors import DeblurError, EngineError
from runtime.frame import Pixels
from runtime.metrics import psnr_db
from runtime.sidecar import Flavour, sidecar_path
from runtime.sources import open_source

ROOT = Path(__file__).parents[2]
LEAST_DB = {"fp32": 55.0, "fp16": 45.0}
"""Agreement of a plan's worst frame with the same ONNX on the CPU. Elsewhere 35: INT8 kernels round differently."""
FRAMES = 24
QUERIES = 128
"""At least, so that the 99th percentile is not the slowest of all."""
_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class Row:
    """What became of one engine."""

    name: str
    built: str
    worst_db: float = 0.0
    least_db: float = 99.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    throughput_fps: float = 0.0

    @property
    def passed(self) -> bool:
        return self.worst_db >= self.least_db


def flavour_here() -> Flavour:
    """TensorRT where it is installed, else TensorRT-RTX; raises EngineError if neither is."""
    for each in _FLAVOURS:
        with contextlib.suppress(EngineError):
            import_tensorrt(each)
            return each
    raise EngineError("neither tensorrt nor tensorrt-rtx can be imported", hint="pip install 'deblur-toolkit[rtx]'")


def check(onnx: Path, folder: Path, frames: list[Pixels], *, flavour: Flavour, duration_s: float) -> Row:
    """Build a plan of one ONNX engine for the size of `frames`, uint8[1, H, W, 3] BGR, and try it."""
    height, width = frames[0].shape[1:3]
    size = (width, height)
    config = PlanConfig(flavour=flavour, min_size=size, opt_size=size, max_size=size)
    cache = folder / "timing.cache"
    plan, sidecar = plan_from_onnx(onnx.read_bytes(), inspect(onnx), config, name=onnx.name, timing_cache=cache)
    path = folder / f"{onnx.stem}.plan"
    path.write_bytes(plan)
    sidecar_path(path).write_text(sidecar.to_json())
    reference = open_backend(onnx, provider="cpu")
    with contextlib.closing(open_backend(path)) as engine:
        agreement = [psnr_db(engine.infer(frame)[0], reference.infer(frame)[0]) for frame in frames]
        reference.close()
        warm_up(engine, frames, least_s=0)
        (times_ms,) = single_stream([engine], frames, Load(min_queries=QUERIES, min_duration_s=duration_s))
    return Row(
        name=onnx.stem,
        built=summary(sidecar),
        worst_db=min(*agreement, 99.0),
        least_db=LEAST_DB.get(sidecar.engine.precision, 35.0),
        p50_ms=percentile(times_ms, 50),
        p99_ms=percentile(times_ms, 99),
        throughput_fps=throughput(path, frames, duration_s=duration_s),
    )


def checked(onnx: Path, folder: Path, frames: list[Pixels], *, flavour: Flavour, duration_s: float) -> Row:
    """As `check`; an engine that does not build or run is a row that says so."""
    try:
        return check(onnx, folder, frames, flavour=flavour, duration_s=duration_s)
    except DeblurError as error:
        return Row(name=onnx.stem, built=str(error))


def throughput(plan: Path, frames: list[Pixels], *, duration_s: float) -> float:
    """Frames a second with all slots busy, copies included."""
    with contextlib.closing(open_backend(plan, mode="throughput")) as engine:
        done, seconds = offline(engine, frames, duration_s=duration_s)
        return done / seconds


def page(device: Device, flavour: Flavour, rows: list[Row], tests: str) -> str:
    """The verdict, in Markdown."""
    failed = [row.name for row in rows if not row.passed] + ([] if tests.startswith("passed") else ["the tests"])
    kind = "integrated" if device.integrated else "discrete"
    lines = [
        f"# {'FAIL: ' + ', '.join(failed) if failed else 'PASS'}",
        "",
        f"- {device.name}, compute capability {device.compute_capability}, {kind}, driver for CUDA {device.driver}",
        f"- {flavour} {import_tensorrt(flavour).__version__}; {', '.join(_versions())}",
        f"- {platform.platform()}, Python {platform.python_version()}",
        f"- `pytest -m gpu`: {tests}",
        "",
        "| engine | built | worst frame against the CPU, dB | p50 ms | p99 ms | frames a second, 3 slots |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *map(_line, rows)])


def _line(row: Row) -> str:
    return (
        f"| {row.name} | {row.built} | {row.worst_db:.1f} (at least {row.least_db:.0f}) "
        f"| {row.p50_ms:.2f} | {row.p99_ms:.2f} | {row.throughput_fps:.0f} |"
    )


def _versions() -> Iterator[str]:
    for name in ("onnxruntime", "numpy", "pycuda", "cuda-bindings"):
        with contextlib.suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def run_tests() -> str:
    """The tests that need a GPU; their last line."""
    if find_spec("pytest") is None:
        return "failed: pytest is not installed"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/runtime/test_gpu.py"]
    done = subprocess.run(  # noqa: S603 - our own command
        command, cwd=ROOT, env=os.environ | {"DEBLUR_REQUIRE_GPU": "1"}, capture_output=True, text=True, check=False
    )
    last = (done.stdout.strip().splitlines() or ["pytest did not run"])[-1]
    return f"{'passed' if done.returncode == 0 else 'failed'}: {last}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--engines", type=Path, default=BUNDLED.parent, metavar="DIR", help="ONNX engines (default: the bundled ones)")
    add("--out", type=Path, default=ROOT / "out" / "gpu-check", metavar="DIR", help="plans and verdict.md")
    add("--duration", type=float, default=5.0, metavar="S", help="seconds of measuring, twice an engine (default: 5)")
    options = parser.parse_args(arguments)
    try:
        frames = [
            frame.pixels[np.newaxis] for frame, _ in zip(open_source(str(DEMO_BLURRED)), range(FRAMES), strict=False)
        ]
        device, flavour = probe(), flavour_here()
        found = [path for path in sorted(options.engines.glob("*.onnx")) if inspect(path).precision != "int8_cpu"]
        if not found:
            raise EngineError("no engines for a GPU", options.engines, hint="give --engines a folder of .onnx files")
        options.out.mkdir(parents=True, exist_ok=True)
        rows = [checked(path, options.out, frames, flavour=flavour, duration_s=options.duration) for path in found]
    except DeblurError as error:
        return report_error(error, debug=False)
    text = page(device, flavour, rows, run_tests())
    (options.out / "verdict.md").write_text(text + "\n")
    print(text)
    return 0 if text.startswith("# PASS") else 1


if __name__ == "__main__":
    sys.exit(main())
