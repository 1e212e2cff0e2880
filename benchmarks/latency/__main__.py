"""`python -m benchmarks.latency`: measure the cost of engines and compare their speed.

Four layers are measured separately: compute on the device; host latency, from a frame in memory to its result in
memory; end-to-end latency through the pipeline with decoder and encoder, at a rate that the engine sustains; and
throughput, of the engine alone and of the whole pipeline as a file job. The file job is compared with its floor: the
engine alone plus FFmpeg's transcode of the same clip. Engines run interleaved in all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.clock import ClockSkew, WallClock, examine_clock, require_fine_clock
from benchmarks.harness.engines import anonymize_source, describe_engine, label_engines, load_frames, open_named_engine
from benchmarks.harness.results import format_command, require_writable, write_results
from benchmarks.harness.scenarios import Load, WarmUp, cycle_frames, run_interleaved, warm_up
from benchmarks.harness.statistics import MIN_ROUNDS, compare, summarize
from benchmarks.harness.system_info import describe_machine
from benchmarks.latency.layers import (
    Job,
    measure_compute,
    measure_memory,
    measure_pipelines,
    measure_server,
    measure_throughput,
)
from benchmarks.latency.table import format_tables
from runtime.arguments import number_in, parse_size, whole_number_in
from runtime.cli import run_cli, say
from runtime.engines import BUNDLED, MODES, Engine
from runtime.engines.timing import PAUSE_S
from runtime.parser import CommandParser

MAX_DRIFT = 0.1
"""Relative change from the first to the last quarter of a run above which a note is written."""


def measure(job: Job, engines: Sequence[Engine]) -> dict[str, Any]:
    """Measure all layers of all engines; return `latency` of schema.json."""
    clock = WallClock()
    clock_facts, skew = examine_clock(clock), ClockSkew(clock)
    say("warm-up")
    frames = [job.frames_for(engine) for engine in engines]
    warm_ups = [warm_up(engine, own, min_s=job.load.warm_up_s) for engine, own in zip(engines, frames, strict=True)]
    say("single stream scenario: the next frame when the previous one is done")
    min_rounds = 2 * MIN_ROUNDS if len(engines) > 1 else 1
    queries = [cycle_frames(engine.infer, own) for engine, own in zip(engines, frames, strict=True)]
    times_ms = run_interleaved(queries, replace(job.load, min_rounds=min_rounds))
    require_fine_clock(clock_facts, min(float(times.min()) for times in times_ms))
    say("offline scenario: all slots busy")
    throughputs = measure_throughput(job, engines)
    servers = [measure_server(job, engine) if job.rate_fps else None for engine in engines]
    pipelines = measure_pipelines(job, engines, times_ms) if job.pipeline else [None] * len(engines)
    names = label_engines(job.names)
    results = [
        {
            "name": name,
            **describe_engine(path, engine),
            "warm_up": asdict(warm_ups[index]),
            "compute": measure_compute(engine, job),
            "host": asdict(summarize(times_ms[index])),
            "drift": compute_drift(times_ms[index]),
            "scheduled": servers[index],
            "pipeline": pipelines[index],
            **throughputs[index],
            "memory": measure_memory(job, path, engine),
        }
        for index, (name, path, engine) in enumerate(zip(names, job.names, engines, strict=True))
    ]
    return {
        "size": list(job.size),
        "source": job.source,
        "frames": len(job.frames),
        "threads": job.threads,
        "load": job.load.to_json(),
        "clock": {"name": "perf_counter_ns", **asdict(clock_facts), "skew": round(skew.measure(), 8)},
        "turns": {
            "rounds": len(times_ms[0]),
            "queries": [times.shape[1] for times in times_ms],
            "pause_ms": 1e3 * PAUSE_S if len(engines) > 1 else 0,
        },
        "engines": results,
        "ratios": _compare_with_first(names, times_ms),
        "notes": _write_notes(names, warm_ups, results),
    }


def compute_drift(rounds_ms: NDArray[np.float64]) -> float | None:
    """Return the median of the last quarter of the rounds divided by that of the first; None below eight rounds."""
    quarter = len(rounds_ms) // 4
    if quarter < 2:
        return None
    return round(float(np.median(rounds_ms[-quarter:]) / np.median(rounds_ms[:quarter])), 4)


def _compare_with_first(names: Sequence[str], times_ms: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    return [
        {"engine": name, "over": names[0], **asdict(compare(times, times_ms[0]))}
        for name, times in zip(names[1:], times_ms[1:], strict=True)
    ]


def _write_notes(names: Sequence[str], warm_ups: Sequence[WarmUp], results: Sequence[dict[str, Any]]) -> list[str]:
    """Return a note for everything that makes the figures of this run doubtful."""
    notes = []
    for name, before, result in zip(names, warm_ups, results, strict=True):
        drift, server, pipeline = result["drift"], result["scheduled"], result["pipeline"]
        if not before.steady:
            notes.append(f"{name} was still getting faster when its warm-up ended after {before.seconds:.0f} s")
        if drift is not None and abs(drift - 1) > MAX_DRIFT:
            notes.append(f"{name} took {drift:.2f} times as long in the last quarter as in the first")
        if server and not server["held"]:
            notes.append(f"{name} cannot sustain {server['rate_fps']:g} frames per second: its queue grows")
        if pipeline and pipeline["live"]["dropped"]:
            notes.append(f"{name} dropped {pipeline['live']['dropped']} frames of the live source")
    return notes


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.latency`."""
    parser = CommandParser("benchmarks.latency", description=__doc__.splitlines()[0])
    group = parser.add_argument_group("engines")
    group.add_argument(
        "--engine",
        action="append",
        metavar="E[@PROVIDER]",
        help="engine file, with an execution provider if wanted; repeat the option to compare engines with the first "
        "(default: the bundled engine)",
    )
    group.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads of each engine (default: one for each core)"
    )
    group.add_argument(
        "--mode",
        choices=MODES,
        default="latency",
        help="execution mode: latency keeps one frame in flight, throughput several (default: latency)",
    )
    group = parser.add_argument_group("frames")
    group.add_argument(
        "--source",
        default="clip",
        metavar="S",
        help="source of the frames: clip (the demo clip), synthetic (noise), a video, or a folder of images "
        "(default: clip)",
    )
    group.add_argument(
        "--size", type=parse_size, default=(640, 360), metavar="WxH", help="frame size in pixels (default: 640x360)"
    )
    group = parser.add_argument_group("load")
    group.add_argument(
        "--min-queries",
        type=whole_number_in(1, 10**9),
        default=128,
        metavar="N",
        help="minimum number of measured frames for each engine (default: 128)",
    )
    group.add_argument(
        "--min-duration",
        type=number_in(0, 86_400),
        default=10.0,
        metavar="S",
        help="minimum measured time for each engine, in seconds (default: 10)",
    )
    group.add_argument(
        "--warm-up",
        type=number_in(0, 86_400),
        default=1.0,
        metavar="S",
        help="minimum warm-up time in seconds; the warm-up also continues until frames get no faster (default: 1)",
    )
    group.add_argument(
        "--rate",
        type=number_in(1e-3, 1e6),
        metavar="FPS",
        help="also measure the server scenario at this many frames per second; the live source uses the rate, too",
    )
    group.add_argument(
        "--no-pipeline",
        dest="pipeline",
        action="store_false",
        help="measure engines only, without decoder and encoder",
    )
    group = parser.add_argument_group("output and errors")
    group.add_argument("--json", type=Path, metavar="F", help="result file to write (see schema.json)")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.latency` and return its exit code."""
    options = parse(arguments)

    def command(_: object) -> int:
        require_writable(options.json)
        machine = describe_machine()
        names = options.engine or [str(BUNDLED)]
        job = Job(
            names=names,
            frames=load_frames(options.source, options.size),
            source=anonymize_source(options.source),
            load=Load(min_queries=options.min_queries, min_duration_s=options.min_duration, warm_up_s=options.warm_up),
            rate_fps=options.rate,
            threads=options.threads,
            pipeline=options.pipeline,
        )
        with ExitStack() as stack:
            engines = []
            for name in names:
                engines.append(open_named_engine(name, threads=options.threads, mode=options.mode))
                stack.callback(engines[-1].close)
            results = measure(job, engines)
        print(format_tables(results))
        if options.json:
            text = format_command("benchmarks.latency", arguments)
            write_results(options.json, kind="latency", results=results, command=text, machine=machine)
        return 0

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
