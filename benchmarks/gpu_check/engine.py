"""Steps of one engine: build a plan, list its layers, compare its output with the CPU, and measure its speed."""

from __future__ import annotations

import contextlib
import json
import logging
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.gpu_check.gpu import detect_flavour, open_without_graphs, read_frames
from benchmarks.gpu_check.kinds import PLANS
from benchmarks.gpu_check.steps import CheckError, Report
from benchmarks.harness.metrics import capped_psnr_db
from benchmarks.harness.scenarios import Load, run_offline, run_single_stream, warm_up
from benchmarks.harness.statistics import percentile
from export.plan.__main__ import BuildOptions, build
from export.plan.config import PlanConfig
from export.plan.layer_report import format_summary
from runtime.engines import open_backend
from runtime.engines.base import frame_size
from runtime.engines.cuda_drivers import open_cuda
from runtime.engines.nvidia import create_logger, import_tensorrt
from runtime.engines.onnx import OnnxEngine, inspect
from runtime.engines.tensorrt import TensorRtEngine
from runtime.errors import DeblurError
from runtime.frame import Pixels
from runtime.sidecar import read_sidecar
from runtime.spec import PixelFormat

MIN_DB = {"fp32": 55.0, "fp16": 45.0}
"""Smallest accepted PSNR in dB between a plan and the same ONNX engine on the CPU, on the worst frame."""
MIN_INT8_DB = 35.0
"""The same for other precisions: INT8 kernels of GPU and CPU round differently."""
MIN_QUERIES = 128
"""Minimum number of measured frames: with fewer, the 99th percentile would be the maximum."""
TYPES = {"FP32": "FP32", "Float": "FP32", "FP16": "FP16", "Half": "FP16", "Int8": "INT8", "INT8": "INT8"}
"""Names of data types in the layer reports of TensorRT's versions."""


def list_engines(report: Report, *, folder: str) -> None:
    """Report name, path and precision of every engine of a folder that is for GPUs, those for planes last.

    Engines for CPUs are left out.
    """
    engines: list[dict[str, str]] = []
    for_planes: list[dict[str, str]] = []
    problems = []
    for path in sorted(Path(folder).glob("*.onnx"), key=lambda path: (path.stat().st_size, path.name)):
        try:
            spec = inspect(path)
        except DeblurError as error:
            problems.append(str(error))
            continue
        if spec.precision != "int8_cpu":
            found = engines if spec.pixels == "bgr" else for_planes
            found.append({"name": path.stem, "path": str(path), "precision": spec.precision})
    engines += for_planes
    report.add(engines=engines)
    if problems:
        raise CheckError("; ".join(problems))
    if not engines:
        raise CheckError(f"no engines for a GPU in {folder}; give --engines a folder of .onnx files")


def build_plan(report: Report, *, onnx: str, plan: str, kind: str) -> None:
    """Build a plan of one ONNX engine and report how long it took and what the builder made of it."""
    logging.getLogger().setLevel(logging.DEBUG)  # the builder tells every decision
    settings = PLANS[kind]
    config = PlanConfig(
        flavour=detect_flavour(),
        min_size=settings.sizes[0],
        opt_size=settings.sizes[1],
        max_size=settings.sizes[2],
        batch=settings.batch,
    )
    cache = Path(plan).with_name("timing.cache")
    began = perf_counter()
    sidecar = build(BuildOptions(onnx=Path(onnx), out=Path(plan), config=config, timing_cache=cache))
    report.add(
        build_s=round(perf_counter() - began, 1),
        plan_mb=round(Path(plan).stat().st_size / 1e6, 1),
        summary=format_summary(sidecar),
    )


def list_layers(report: Report, *, plan: str) -> None:
    """Report the number of layers of a plan by kind and data type, and write TensorRT's list of them to a file."""
    path = Path(plan)
    content = path.read_bytes()
    trt = import_tensorrt(read_sidecar(path, content).flavour)
    log = create_logger(trt)
    with contextlib.closing(open_cuda()) as cuda, cuda.active():
        runtime = trt.Runtime(log)
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise CheckError(f"the plan cannot be loaded ({log.reason()})")
        sizes = ("device_memory_size_v2", "device_memory_size")  # TensorRT has the first since 10.1
        scratch: int = next(getattr(engine, name) for name in sizes if hasattr(engine, name))
        report.add(scratch_mb=round(scratch / 1e6, 1))
        text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
        del engine, runtime
    path.with_name(f"{path.stem}.layers.json").write_text(text)
    layers: list[Any] = json.loads(text).get("Layers", [])
    report.add(layers=len(layers), **count_layers(layers))
    if not layers:
        raise CheckError("the inspector lists no layers")


def count_layers(layers: list[Any]) -> dict[str, dict[str, int]]:
    """Return the number of layers by kind and by the data type of their first output.

    A layer is a dictionary, or only a name in plans without details.
    """
    kinds: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for layer in layers:
        if not isinstance(layer, dict):
            kinds["unknown"] += 1
            continue
        kinds[str(layer.get("LayerType", "unknown"))] += 1
        first = str((layer.get("Outputs") or [""])[0])
        types[next((name for word, name in TYPES.items() if word in first), "other")] += 1
    return {"layer_kinds": dict(kinds.most_common()), "layer_types": dict(types.most_common())}


def compare_output(report: Report, *, onnx: str, plan: str, kind: str) -> None:
    """Compare a plan with the CPU for every size and batch of its kind, and its CUDA graph with plain execution."""
    reference = OnnxEngine(Path(onnx))
    batches = _make_batches(kind, reference.spec.pixels)
    expected = [reference.infer(batch) for batch in batches]
    reference.close()
    with contextlib.closing(open_backend(plan)) as engine:
        report.add(backend=engine.backend, sizes=[_name_shape(batch) for batch in batches])
        results = [engine.infer(batch) for batch in batches]
        min_db = MIN_DB.get(engine.spec.precision, MIN_INT8_DB)
        report.add(backend=engine.backend, has_graph="CUDA graph" in engine.backend)
    agreement_db = [min(map(capped_psnr_db, result, truth)) for result, truth in zip(results, expected, strict=True)]
    worst = int(np.argmin(agreement_db))
    report.add(worst_db=round(agreement_db[worst], 1), required_db=min_db)
    if agreement_db[worst] < min_db:
        raise CheckError(
            f"{agreement_db[worst]:.1f} dB between plan and CPU at {_name_shape(batches[worst])}, "
            f"at least {min_db:.0f} dB are required"
        )
    if not np.array_equal(results[0], results[-1]):
        raise CheckError("the first batch gives another result when it comes again after other sizes")
    with contextlib.closing(open_without_graphs(Path(plan))) as engine:
        for batch, result in zip(batches, results, strict=True):
            if not np.array_equal(engine.infer(batch), result):
                raise CheckError(f"the CUDA graph gives another result than plain execution at {_name_shape(batch)}")
    report.add(graph_equals_plain=True)


def _make_batches(kind: str, pixels: PixelFormat) -> list[Pixels]:
    """Return the batches for a kind of plan in a form of frames; the last one is the first one again."""
    settings = PLANS[kind]
    batches = [np.concatenate(read_frames(count, size, pixels)) for size, count in settings.batches]
    if len(settings.batches) == 1:  # one size: many frames
        batches = list(np.split(batches[0], len(batches[0])))
    return [*batches, batches[0]]


def _name_shape(batch: Pixels) -> str:
    width, height = frame_size(batch)
    return f"{len(batch)} x {width}x{height}"


def measure_speed(report: Report, *, plan: str, kind: str, duration_s: float) -> None:
    """Measure latency by the clock of the host, throughput with all slots busy, and computation by the GPU's clock."""
    size = PLANS[kind].sizes[1]
    with contextlib.closing(TensorRtEngine(Path(plan))) as engine:
        frames = read_frames(24, size, engine.spec.pixels)
        warm_up(engine, frames, min_s=0)
        load = Load(min_queries=MIN_QUERIES, min_duration_s=duration_s)
        (times_ms,) = run_single_stream([engine], frames, load)
        report.add(size=f"{size[0]}x{size[1]}", backend=engine.backend, **summarize_ms("host", times_ms))
        report.add(**summarize_ms("compute", np.array(engine.compute_ms(frames[0], count=times_ms.size))))
    with contextlib.closing(open_backend(plan, mode="throughput")) as engine:
        report.add(throughput_fps=round(run_offline(engine, frames, duration_s=duration_s).fps, 1))


def summarize_ms(name: str, times_ms: Any) -> dict[str, float]:
    """Return median and 99th percentile of times as facts, such as `host_p50_ms`."""
    return {f"{name}_p{percent}_ms": round(percentile(times_ms, percent), 3) for percent in (50, 99)}
