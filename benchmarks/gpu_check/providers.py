"""Step that runs an engine by a GPU provider of ONNX Runtime, which is another way than plans."""

from __future__ import annotations

import contextlib

from benchmarks.gpu_check.engine import MIN_DB, MIN_INT8_DB, MIN_QUERIES, summarize_ms
from benchmarks.gpu_check.gpu import read_frames
from benchmarks.gpu_check.kinds import CLIP, Size
from benchmarks.gpu_check.steps import CheckError, NotRunError, Report
from benchmarks.harness.metrics import capped_psnr_db
from benchmarks.harness.scenarios import Load, run_single_stream, warm_up
from runtime.engines import open_backend
from runtime.engines.onnx_providers import OrtProvider, has_provider

_SIZES: tuple[Size, ...] = (CLIP, CLIP, (333, 217), CLIP, (333, 217))
"""Sizes that alternate, so that graphs of several sizes are captured and replayed."""


def measure_provider(report: Report, *, onnx: str, provider: OrtProvider, duration_s: float) -> None:
    """Compare an engine on one provider with the CPU for alternating sizes, and measure its latency."""
    if not has_provider(provider):
        raise NotRunError(f"ONNX Runtime has no provider {provider} here")
    batches = [read_frames(1, size)[0] for size in _SIZES]
    frames = read_frames(24, CLIP)
    with contextlib.closing(open_backend(onnx, provider="cpu")) as reference:
        expected = [reference.infer(batch)[0] for batch in batches]
    with contextlib.closing(open_backend(onnx, provider=provider)) as engine:
        results = [engine.infer(batch)[0] for batch in batches]
        min_db = MIN_DB.get(engine.spec.precision, MIN_INT8_DB)
        worst_db = min(map(capped_psnr_db, results, expected))
        report.add(provider=provider, worst_db=round(worst_db, 1), required_db=min_db)
        if worst_db < min_db:
            raise CheckError(f"{worst_db:.1f} dB between {provider} and CPU, at least {min_db:.0f} dB are required")
        warm_up(engine, frames, min_s=0)
        load = Load(min_queries=MIN_QUERIES, min_duration_s=duration_s)
        (times_ms,) = run_single_stream([engine], frames, load)
        report.add(backend=engine.backend, **summarize_ms("host", times_ms))
