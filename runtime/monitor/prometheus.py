"""Counters, health and latencies of all streams in the Prometheus text format, version 0.0.4.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import process_time

from runtime.monitor.stream import Stream
from runtime.pipeline import STAGES, Pipeline

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_Labels = dict[str, str]
_Sample = tuple[str, _Labels, float]
"""Suffix of the family's name, labels, and value."""

_COUNTERS: list[tuple[str, str, Callable[[Pipeline], float]]] = [
    ("frames_read", "Frames read from the source.", lambda pipeline: pipeline.frames_read),
    ("frames_written", "Frames written to the output.", lambda pipeline: pipeline.frames_written),
    ("frames_dropped", "Frames of a live source dropped for newer ones.", lambda pipeline: pipeline.frames_dropped),
    ("frames_rejected", "Impossible results replaced by their input.", lambda pipeline: pipeline.frames_rejected),
    ("frames_skipped", "Sharp frames written unchanged.", lambda pipeline: pipeline.frames_skipped),
    ("reconnects", "Times that the source was opened again.", lambda pipeline: pipeline.reconnects),
]
"""Name, help text and value of each counter."""


def format_metrics(streams: Sequence[Stream]) -> str:
    """Return the metrics of the process, with the samples of each stream under its index and its source's name."""
    labelled = [(stream, {"stream": str(index), "source": stream.name}) for index, stream in enumerate(streams)]
    lines: list[str] = []
    for name, text, get_value in _COUNTERS:
        samples = [("", labels, get_value(stream.pipeline)) for stream, labels in labelled]
        lines += _format_family(f"deblur_{name}_total", "counter", text, samples)
    lines += _format_health(labelled)
    latencies = [
        sample
        for stream, labels in labelled
        for stage in STAGES
        for sample in _latency_samples(stream.pipeline, stage, labels | {"stage": stage})
    ]
    lines += _format_family(
        "deblur_latency_seconds", "summary", "Latency of a frame by stage, over the whole run.", latencies
    )
    lines += _format_process()
    return "".join(f"{line}\n" for line in lines)


def _format_health(labelled: list[tuple[Stream, _Labels]]) -> list[str]:
    health = [(stream.check_health(), labels) for stream, labels in labelled]
    up = [("", labels, float(state.is_live and state.state != "done")) for state, labels in health]
    ready = [("", labels, float(state.is_ready)) for state, labels in health]
    ages = [("", labels, state.last_frame_age_s) for state, labels in health if state.last_frame_age_s is not None]
    engines = [
        (
            "",
            labels
            | {
                "engine": stream.engine.spec.name,
                "precision": stream.engine.spec.precision,
                "backend": stream.engine.backend,
            },
            1.0,
        )
        for stream, labels in labelled
    ]
    return [
        *_format_family("deblur_up", "gauge", "1 while the stream runs; 0 after it ended, failed or got stuck.", up),
        *_format_family("deblur_ready", "gauge", "1 while the stream writes frames, or has written all.", ready),
        *_format_family("deblur_last_frame_age_seconds", "gauge", "Time since the last frame was written.", ages),
        *_format_family("deblur_engine_info", "gauge", "Engine of the stream.", engines),
    ]


def _latency_samples(pipeline: Pipeline, stage: str, labels: _Labels) -> Iterable[_Sample]:
    latencies = pipeline.latencies[stage]
    if latencies.count:
        for percent, quantile in ((50, "0.5"), (90, "0.9"), (99, "0.99")):
            yield "", labels | {"quantile": quantile}, latencies.percentile_ms(percent) / 1e3
    yield "_sum", labels, latencies.sum_ms / 1e3
    yield "_count", labels, latencies.count


def _format_process() -> list[str]:
    lines = _format_family(
        "process_cpu_seconds_total", "counter", "CPU time of the process.", [("", {}, process_time())]
    )
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return lines
    resident = float(pages * os.sysconf("SC_PAGE_SIZE"))
    return lines + _format_family(
        "process_resident_memory_bytes", "gauge", "Resident memory of the process.", [("", {}, resident)]
    )


def _format_family(name: str, kind: str, text: str, samples: Sequence[_Sample]) -> list[str]:
    """Return the lines of a family: help, type and samples; no lines if there are no samples."""
    if not samples:
        return []
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        pairs = ",".join(f'{label}="{_escape(content)}"' for label, content in labels.items())
        lines.append(f"{name}{suffix}{{{pairs}}} {value!r}" if labels else f"{name}{suffix} {value!r}")
    return lines


def _escape(text: str) -> str:
    """Return a label's value in the text format; bytes of a file name that are not UTF-8 become `\\udcNN`."""
    text = text.encode(errors="backslashreplace").decode()
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
