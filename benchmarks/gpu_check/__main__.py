"""`make gpu-check`: build, run and compare plans on an NVIDIA machine, and print one page with a verdict.

Builds plans from ONNX engines, runs the tests that need a GPU, compares the output of every plan with that of ONNX
Runtime on the CPU, and measures latency and throughput.
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
from benchmarks.harness.markdown import format_table
from benchmarks.harness.metrics import capped_psnr_db
from benchmarks.harness.scenarios import Load, run_offline, run_single_stream, warm_up
from benchmarks.harness.statistics import percentile
from export.plan.builder import build_plan
from export.plan.config import PlanConfig
from export.plan.layer_report import format_summary
from runtime.arguments import number_in
from runtime.cli import run_cli
from runtime.engines import BUNDLED, open_backend
from runtime.engines.cuda import Device, probe
from runtime.engines.nvidia import import_tensorrt
from runtime.engines.onnx import inspect
from runtime.errors import DeblurError, EngineError
from runtime.frame import Pixels
from runtime.libraries import install_hint
from runtime.parser import CommandParser
from runtime.sidecar import Flavour, sidecar_path
from runtime.sources import open_source

ROOT = Path(__file__).parents[2]
MIN_DB = {"fp32": 55.0, "fp16": 45.0}
"""Smallest accepted PSNR in dB between a plan and the same ONNX engine on the CPU, on the worst frame."""
MIN_INT8_DB = 35.0
"""The same for other precisions: INT8 kernels of GPU and CPU round differently."""
FRAMES = 24
MIN_QUERIES = 128
"""Minimum number of measured frames: with fewer, the 99th percentile would be the maximum."""
_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")
_COLUMNS = (
    "engine",
    "plan",
    "worst frame against the CPU (dB)",
    "required (dB)",
    "p50 (ms)",
    "p99 (ms)",
    "throughput, all slots (frames/s)",
)


@dataclass(frozen=True)
class EngineResult:
    """Result of one engine."""

    name: str
    plan: str
    """Summary of the plan, or the error that prevented it."""
    worst_db: float = 0.0
    min_db: float = 99.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    throughput_fps: float = 0.0

    @property
    def is_accurate(self) -> bool:
        """Whether the plan agrees with the CPU."""
        return self.worst_db >= self.min_db


def detect_flavour() -> Flavour:
    """Return TensorRT if it is installed, else TensorRT-RTX; raise EngineError if neither is."""
    for flavour in _FLAVOURS:
        with contextlib.suppress(EngineError):
            import_tensorrt(flavour)
            return flavour
    raise EngineError("neither tensorrt nor tensorrt-rtx can be imported", hint=install_hint("tensorrt_rtx", "cuda"))


def check_engine(
    onnx: Path, folder: Path, frames: list[Pixels], *, flavour: Flavour, duration_s: float
) -> EngineResult:
    """Build a plan of one ONNX engine for the size of `frames`, uint8[1, H, W, 3] BGR, compare it and time it."""
    height, width = frames[0].shape[1:3]
    size = (width, height)
    config = PlanConfig(flavour=flavour, min_size=size, opt_size=size, max_size=size)
    cache = folder / "timing.cache"
    plan, sidecar = build_plan(onnx.read_bytes(), inspect(onnx), config, name=onnx.name, timing_cache=cache)
    path = folder / f"{onnx.stem}.plan"
    path.write_bytes(plan)
    sidecar_path(path).write_text(sidecar.to_json())
    reference = open_backend(onnx, provider="cpu")
    with contextlib.closing(open_backend(path)) as engine:
        agreement_db = [capped_psnr_db(engine.infer(frame)[0], reference.infer(frame)[0]) for frame in frames]
        reference.close()
        warm_up(engine, frames, min_s=0)
        load = Load(min_queries=MIN_QUERIES, min_duration_s=duration_s)
        (times_ms,) = run_single_stream([engine], frames, load)
    return EngineResult(
        name=onnx.stem,
        plan=format_summary(sidecar),
        worst_db=min(agreement_db),
        min_db=MIN_DB.get(sidecar.engine.precision, MIN_INT8_DB),
        p50_ms=percentile(times_ms, 50),
        p99_ms=percentile(times_ms, 99),
        throughput_fps=measure_throughput_fps(path, frames, duration_s=duration_s),
    )


def check_engine_safely(
    onnx: Path, folder: Path, frames: list[Pixels], *, flavour: Flavour, duration_s: float
) -> EngineResult:
    """Call `check_engine`; an engine that does not build or run becomes a result with its error."""
    try:
        return check_engine(onnx, folder, frames, flavour=flavour, duration_s=duration_s)
    except DeblurError as error:
        return EngineResult(name=onnx.stem, plan=str(error))


def measure_throughput_fps(plan: Path, frames: list[Pixels], *, duration_s: float) -> float:
    """Return the frames per second of a plan with all slots busy, copies included."""
    with contextlib.closing(open_backend(plan, mode="throughput")) as engine:
        return run_offline(engine, frames, duration_s=duration_s).fps


def format_page(device: Device, flavour: Flavour, results: list[EngineResult], tests: str) -> str:
    """Return the page in Markdown; its first line is the verdict, `# PASS` or `# FAIL: ...`."""
    failures = [result.name for result in results if not result.is_accurate]
    failures += [] if tests.startswith("passed") else ["the tests"]
    kind = "integrated" if device.integrated else "discrete"
    lines = [
        f"# {'FAIL: ' + ', '.join(failures) if failures else 'PASS'}",
        "",
        f"- {device.name}, compute capability {device.compute_capability}, {kind}, driver for CUDA {device.driver}",
        f"- {flavour} {import_tensorrt(flavour).__version__}; {', '.join(_list_versions())}",
        f"- {platform.platform()}, Python {platform.python_version()}",
        f"- `pytest -m gpu`: {tests}",
        "",
        format_table(_COLUMNS, map(_format_row, results)),
    ]
    return "\n".join(lines)


def _format_row(result: EngineResult) -> list[str]:
    agreement = [f"{result.worst_db:.1f}", f"{result.min_db:.0f}"]
    times = [f"{result.p50_ms:.2f}", f"{result.p99_ms:.2f}", f"{result.throughput_fps:.0f}"]
    return [result.name, result.plan, *agreement, *times]


def _list_versions() -> Iterator[str]:
    for name in ("onnxruntime", "numpy", "pycuda", "cuda-bindings"):
        with contextlib.suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def run_tests() -> str:
    """Run the tests that need a GPU; return `passed: ` or `failed: ` and the last line of pytest."""
    if find_spec("pytest") is None:
        return "failed: pytest is not installed"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/runtime/test_gpu.py"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        command, cwd=ROOT, env=os.environ | {"DEBLUR_REQUIRE_GPU": "1"}, capture_output=True, text=True, check=False
    )
    last_line = (done.stdout.strip().splitlines() or ["pytest did not run"])[-1]
    return f"{'passed' if done.returncode == 0 else 'failed'}: {last_line}"


def check_all(engines: Path, out: Path, *, duration_s: float) -> str:
    """Check all GPU engines of a folder and run the tests; write the page to `out` and return it.

    Raises EngineError without a GPU, without TensorRT, or without engines.
    """
    source = zip(open_source(str(DEMO_BLURRED)), range(FRAMES), strict=False)
    frames = [frame.bgr[np.newaxis] for frame, _ in source]
    device, flavour = probe(), detect_flavour()
    paths = [path for path in sorted(engines.glob("*.onnx")) if inspect(path).precision != "int8_cpu"]
    if not paths:
        raise EngineError("no engines for a GPU", engines, hint="give --engines a folder of .onnx files")
    out.mkdir(parents=True, exist_ok=True)
    results = [check_engine_safely(path, out, frames, flavour=flavour, duration_s=duration_s) for path in paths]
    page = format_page(device, flavour, results, run_tests())
    (out / "verdict.md").write_text(page + "\n")
    return page


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.gpu_check`."""
    parser = CommandParser("benchmarks.gpu_check", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--engines",
        type=Path,
        default=BUNDLED.parent,
        metavar="DIR",
        help="folder of ONNX engines (default: the bundled engines)",
    )
    add(
        "--out",
        type=Path,
        default=ROOT / "out" / "gpu-check",
        metavar="DIR",
        help="folder for plans and verdict.md (default: out/gpu-check)",
    )
    add(
        "--duration",
        type=number_in(1e-3, 86_400),
        default=5.0,
        metavar="S",
        help="seconds of each of the two measurements of an engine (default: 5)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.gpu_check`; return 0 if everything passed, else 1."""
    options = build_parser().parse_args(arguments)

    def command(_: object) -> int:
        page = check_all(options.engines, options.out, duration_s=options.duration)
        print(page)
        return 0 if page.startswith("# PASS") else 1

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
