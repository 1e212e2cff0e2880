"""Counts and latencies in the text format of Prometheus, version 0.0.4."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import process_time

from runtime.monitor.stream import Stream
from runtime.pipeline import STAGES, Pipeline

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# https://prometheus.io/docs/instrumenting/exposition_formats/
_Labels = dict[str, str]
_Sample = tuple[str, _Labels, float]
"""What stands behind the family's name, labels, value."""

_COUNTERS: list[tuple[str, str, Callable[[Pipeline], float]]] = [
    ("frames_read", "Frames taken from the source.", lambda pipeline: pipeline.frames_read),
    ("frames_written", "Frames written to the output.", lambda pipeline: pipeline.frames_written),
    ("frames_dropped", "Frames passed over for newer ones.", lambda pipeline: pipeline.frames_dropped),
    ("frames_rejected", "Impossible results replaced by their input.", lambda pipeline: pipeline.frames_rejected),
    ("frames_skipped", "Frames that were sharp already and went on untouched.", lambda each: each.frames_skipped),
    ("reconnects", "How often the source was opened again.", lambda pipeline: pipeline.reconnects),
]


def exposition(streams: Sequence[Stream]) -> str:
    """All families, each with one sample or more a stream."""
    labelled = [(stream, {"stream": str(index), "source": stream.name}) for index, stream in enumerate(streams)]
    lines: list[str] = []
    for name, text, value in _COUNTERS:
        samples = [("", labels, value(stream.pipeline)) for stream, labels in labelled]
        lines += _family(f"deblur_{name}_total", "counter", text, samples)
    lines += _states(labelled)
    latencies = [
        sample
        for stream, labels in labelled
        for stage in STAGES
        for sample in _latency(stream.pipeline, stage, labels | {"stage": stage})
    ]
    lines += _family("deblur_latency_seconds", "summary", "Latency of a frame by stage, of the whole run.", latencies)
    lines += _process()
    return "".join(f"{line}\n" for line in lines)


def _states(labelled: list[tuple[Stream, _Labels]]) -> list[str]:
    health = [(stream.health(), labels) for stream, labels in labelled]
    up = [("", labels, float(each.live and each.state != "done")) for each, labels in health]
    ready = [("", labels, float(each.ready)) for each, labels in health]
    ages = [("", labels, each.last_frame_age_s) for each, labels in health if each.last_frame_age_s is not None]
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
        *_family("deblur_up", "gauge", "1 while the stream runs, 0 once it ended, failed or is stuck.", up),
        *_family("deblur_ready", "gauge", "1 while the stream gives frames, or has given all of them.", ready),
        *_family("deblur_last_frame_age_seconds", "gauge", "Since the last frame was written.", ages),
        *_family("deblur_engine_info", "gauge", "The engine that the stream runs through.", engines),
    ]


def _latency(pipeline: Pipeline, stage: str, labels: _Labels) -> Iterable[_Sample]:
    latencies = pipeline.latencies[stage]
    if latencies.count:
        for percent, quantile in ((50, "0.5"), (90, "0.9"), (99, "0.99")):
            yield "", labels | {"quantile": quantile}, latencies.percentile_ms(percent) / 1e3
    yield "_sum", labels, latencies.sum_ms / 1e3
    yield "_count", labels, latencies.count


def _process() -> list[str]:
    lines = _family("process_cpu_seconds_total", "counter", "CPU time of the process.", [("", {}, process_time())])
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return lines
    resident = float(pages * os.sysconf("SC_PAGE_SIZE"))
    return lines + _family("process_resident_memory_bytes", "gauge", "Memory in use.", [("", {}, resident)])


def _family(name: str, kind: str, text: str, samples: Sequence[_Sample]) -> list[str]:
    """Help, type, samples; nothing where there are none."""
    if not samples:
        return []
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for suffix, labels, value in samples:
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        lines.append(f"{name}{suffix}{{{inside}}} {value!r}" if labels else f"{name}{suffix} {value!r}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
