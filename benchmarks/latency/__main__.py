"""`python -m benchmarks.latency --engine A --engine B`: what engines cost, and how they stand to one another.

Four layers, kept apart: what the device computes; host latency, from a frame in memory to its result in memory;
frame-in to frame-out through the pipeline, with decoder and encoder, at a rate that it holds; and throughput, of
the engine alone and of the whole pipeline as a file job. Engines take turns in all of them.
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

from benchmarks.harness.clock import Skew, WallClock, examine, require_fine
from benchmarks.harness.engines import facts, frames, labels, opened
from benchmarks.harness.results import command_line, prepare, write_results
from benchmarks.harness.scenarios import PAUSE_S, Load, WarmUp, single_stream, warm_up
from benchmarks.harness.statistics import LEAST_ROUNDS, ratio, summary
from benchmarks.harness.system_info import facts as machine_facts
from benchmarks.latency import layers
from benchmarks.latency.layers import Job, say
from benchmarks.latency.table import tables
from runtime.arguments import parse_size
from runtime.cli import report_error
from runtime.engines import BUNDLED, MODES, Engine
from runtime.errors import DeblurError

DRIFT = 0.1
"""A change from the first to the last quarter that is worth a note."""


def run(job: Job, engines: Sequence[Engine]) -> dict[str, Any]:
    """All layers of all engines; `latency` in schema.json, without what the command line says."""
    clock = WallClock()
    clock_facts, skew = examine(clock), Skew(clock)
    say("warm-up")
    warm = [warm_up(engine, job.frames, least_s=job.load.warm_up_s) for engine in engines]
    say("single stream: the next frame when the one before is done")
    least = 2 * LEAST_ROUNDS if len(engines) > 1 else 1
    rounds = single_stream(engines, job.frames, replace(job.load, min_rounds=least))
    require_fine(clock_facts, min(float(each.min()) for each in rounds))
    say("throughput: all slots busy")
    told = layers.throughput(job, engines)
    scheduled = [layers.scheduled(job, engine) for engine in engines] if job.rate_fps else [None] * len(engines)
    pipelines = layers.pipelines(job, engines, rounds) if job.pipeline else [None] * len(engines)
    names = labels(job.names)
    results = [
        {
            "name": name,
            **facts(path, engine),
            "warm_up": asdict(warm[index]),
            "compute": layers.compute(engine, job),
            "host": asdict(summary(rounds[index])),
            "drift": drift(rounds[index]),
            "scheduled": scheduled[index],
            "pipeline": pipelines[index],
            **told[index],
            "memory": layers.memory(job, path, engine),
        }
        for index, (name, path, engine) in enumerate(zip(names, job.names, engines, strict=True))
    ]
    return {
        "clock": {"name": "perf_counter_ns", **asdict(clock_facts), "skew": round(skew.checked(), 8)},
        "turns": {
            "rounds": len(rounds[0]),
            "queries": [each.shape[1] for each in rounds],
            "pause_ms": 1e3 * PAUSE_S if len(engines) > 1 else 0,
        },
        "engines": results,
        "ratios": _ratios(names, rounds),
        "notes": _notes(names, warm, results),
    }


def drift(rounds_ms: NDArray[np.float64]) -> float | None:
    """Median of the last quarter of the rounds over that of the first; None of fewer than eight rounds."""
    quarter = len(rounds_ms) // 4
    if quarter < 2:
        return None
    return round(float(np.median(rounds_ms[-quarter:]) / np.median(rounds_ms[:quarter])), 4)


def _ratios(names: Sequence[str], rounds: Sequence[NDArray[np.float64]]) -> list[dict[str, Any]]:
    """Each engine against the first."""
    return [
        {"engine": name, "over": names[0], **asdict(ratio(each, rounds[0]))}
        for name, each in zip(names[1:], rounds[1:], strict=True)
    ]


def _notes(names: Sequence[str], warm: Sequence[WarmUp], results: Sequence[dict[str, Any]]) -> list[str]:
    """What makes figures of this run doubtful."""
    notes = []
    for name, before, each in zip(names, warm, results, strict=True):
        if not before.steady:
            notes.append(f"{name} was still getting faster when its warm-up ended after {before.seconds:.0f} s")
        if each["drift"] is not None and abs(each["drift"] - 1) > DRIFT:
            notes.append(f"{name} took {each['drift']:.2f} times as long in the last quarter as in the first")
        if each["scheduled"] and not each["scheduled"]["held"]:
            notes.append(f"{name} cannot hold {each['scheduled']['rate_fps']:g} frames a second: its queue grows")
        if each["pipeline"] and each["pipeline"]["live"]["dropped"]:
            notes.append(f"{name} dropped {each['pipeline']['live']['dropped']} frames of the live source")
    return notes


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--engine", action="append", metavar="E[@PROVIDER]", help="an engine file; again for each to compare")
    add("--size", type=parse_size, default=(640, 360), metavar="WxH", help="of the frames (default: 640x360)")
    add("--source", default="clip", metavar="S", help="clip (the demo's), synthetic (noise), a video or pictures")
    add("--min-queries", type=int, default=128, metavar="N", help="of each engine at least (default: 128)")
    add("--min-duration", type=float, default=10.0, metavar="S", help="and for so many seconds (default: 10)")
    add("--warm-up", type=float, default=1.0, metavar="S", help="before, at least, and until steady (default: 1)")
    add("--rate", type=float, metavar="FPS", help="also queries at fixed times, so many a second")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads of each engine (default: every core)")
    add("--mode", choices=MODES, default="latency", help="of a plan")
    add("--no-pipeline", dest="pipeline", action="store_false", help="engines alone, no decoder and encoder")
    add("--json", type=Path, metavar="F", help="write a result file (schema.json)")
    options = parser.parse_args(arguments)
    if options.min_queries < 1 or min(options.min_duration, options.warm_up) < 0 or (options.rate or 1) <= 0:
        parser.error("at least one query, no negative times, and a positive rate")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    names = options.engine or [str(BUNDLED)]
    load = Load(min_queries=options.min_queries, min_duration_s=options.min_duration, warm_up_s=options.warm_up)
    try:
        prepare(options.json)
        machine = machine_facts()
        pictures = frames(options.source, options.size)
        job = Job(
            names=names,
            frames=pictures,
            load=load,
            rate_fps=options.rate,
            threads=options.threads,
            pipeline=options.pipeline,
        )
        with ExitStack() as last:
            engines = []
            for name in names:
                engines.append(opened(name, threads=options.threads, mode=options.mode))
                last.callback(engines[-1].close)
            measured = run(job, engines)
        results = _asked(options, job) | measured
        print(tables(results))
        if options.json:
            command = command_line("benchmarks.latency", arguments)
            write_results(options.json, kind="latency", results=results, command=command, machine=machine)
    except DeblurError as error:
        return report_error(error, debug=False)
    return 0


def _asked(options: argparse.Namespace, job: Job) -> dict[str, Any]:
    return {
        "size": list(options.size),
        "source": options.source if options.source in ("clip", "synthetic") else "other",
        "frames": len(job.frames),
        "threads": options.threads,
        "load": {name: value for name, value in asdict(job.load).items() if name != "min_rounds"},
    }


if __name__ == "__main__":
    sys.exit(main())
