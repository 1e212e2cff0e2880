"""`python -m benchmarks.scaling`: measure how the cost of a frame depends on its size, on threads, and on streams.

Sizes and thread counts run interleaved, like engines in `benchmarks.latency`. Each stream has an engine and a thread of
its own in one process, with an equal share of the CPU cores. Streams that share one engine may cost less.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.engines import (
    anonymize_source,
    describe_engine,
    label_engines,
    load_frames,
    open_named_engine,
    pin_provider,
)
from benchmarks.harness.markdown import format_number, format_table
from benchmarks.harness.results import format_command, require_writable, write_results
from benchmarks.harness.scenarios import THROUGHPUT_ROUNDS, Load, cycle_frames, run_interleaved, run_offline, warm_up
from benchmarks.harness.statistics import fit_line, summarize
from benchmarks.harness.system_info import count_cores, describe_machine
from runtime.arguments import number_in, parse_size, whole_number_in
from runtime.cli import run_cli, say
from runtime.engines import BUNDLED, Engine
from runtime.frame import Pixels, Size
from runtime.parser import CommandParser

SIZES: tuple[Size, ...] = ((320, 180), (640, 360), (960, 540), (1280, 720), (1920, 1080))
QUESTIONS = ("resolution", "threads", "streams")
_SIZES_COLUMNS = ("size (pixels)", "megapixels", "p50 (ms)", "p90 (ms)", "MAD (ms)", "queries")
_THREADS_COLUMNS = ("threads", "p50 (ms)", "p90 (ms)", "speed-up (ratio)", "queries")
_STREAMS_COLUMNS = ("streams", "threads per stream", "all streams (frames/s)", "slowest stream (frames/s)")


def measure_sizes(name: str, sizes: Sequence[Size], source: str, load: Load) -> dict[str, Any]:
    """Measure the time of a frame at each size and fit a line; return `resolution` of schema.json."""
    with ExitStack() as stack:
        engines = [_open(stack, name) for _ in sizes]  # one for each size: an engine keeps only a few sizes prepared
        frames = [load_frames(source, size) for size in sizes]
        say(f"sizes: {', '.join('{}x{}'.format(*size) for size in sizes)}")
        times_ms = _run_single_stream(engines, frames, load)
    megapixels = [width * height / 1e6 for width, height in sizes]
    summaries = [summarize(times) for times in times_ms]
    fit = fit_line(megapixels, [summary.p50_ms for summary in summaries])
    return {
        "points": [
            {"size": list(size), "megapixels": area, "host": asdict(summary)}
            for size, area, summary in zip(sizes, megapixels, summaries, strict=True)
        ],
        "line": asdict(fit) if fit else None,
    }


def measure_threads(name: str, counts: Sequence[int], frames: list[Pixels], load: Load) -> dict[str, Any]:
    """Measure the time of a frame with each number of threads, and the speed-up over the first number."""
    with ExitStack() as stack:
        engines = [_open(stack, name, threads=count) for count in counts]
        say(f"threads: {', '.join(map(str, counts))}")
        times_ms = _run_single_stream(engines, [frames] * len(counts), load)
    first_ms = float(np.median(times_ms[0]))
    return {
        "points": [
            {
                "threads": count,
                "host": asdict(summarize(times)),
                "speedup": round(first_ms / float(np.median(times)), 4),
            }
            for count, times in zip(counts, times_ms, strict=True)
        ]
    }


def measure_streams(name: str, counts: Sequence[int], frames: list[Pixels], load: Load) -> dict[str, Any]:
    """Measure the frames per second of several engines at the same time: of all together and of the slowest."""
    shares = [max(1, count_cores() // count) for count in counts]
    rates_fps: list[list[list[float]]] = [[] for _ in counts]
    for round_number in range(THROUGHPUT_ROUNDS):
        say(f"streams: {', '.join(map(str, counts))}, round {round_number + 1} of {THROUGHPUT_ROUNDS}")
        for index, (count, share) in enumerate(zip(counts, shares, strict=True)):
            with ExitStack() as stack:
                engines = [_open(stack, name, threads=share) for _ in range(count)]
                for engine in engines:
                    warm_up(engine, frames, min_s=0)
                duration_s = load.min_duration_s / THROUGHPUT_ROUNDS
                rates_fps[index].append(run_concurrently(engines, frames, duration_s=duration_s))
    return {
        "points": [
            {
                "streams": count,
                "threads_each": share,
                "fps": round(float(np.median([sum(streams_fps) for streams_fps in rounds])), 3),
                "slowest_fps": round(float(np.median([min(streams_fps) for streams_fps in rounds])), 3),
                "rounds_fps": [round(sum(streams_fps), 3) for streams_fps in rounds],
            }
            for count, share, rounds in zip(counts, shares, rates_fps, strict=True)
        ]
    }


def run_concurrently(engines: Sequence[Engine], frames: list[Pixels], *, duration_s: float) -> list[float]:
    """Run the offline scenario on all engines at the same time; return the frames per second of each.

    Raises the first error of any engine.
    """
    barrier = Barrier(len(engines))
    rates_fps = [0.0] * len(engines)
    errors: list[BaseException] = []

    def run(index: int, engine: Engine) -> None:
        try:
            barrier.wait()
            rates_fps[index] = run_offline(engine, frames, duration_s=duration_s).fps
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    threads = [Thread(target=run, args=item, name=f"stream {item[0]}") for item in enumerate(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return rates_fps


def _open(stack: ExitStack, name: str, *, threads: int = 0) -> Engine:
    engine = open_named_engine(name, threads=threads)
    stack.callback(engine.close)
    return engine


def _run_single_stream(
    engines: Sequence[Engine], frames: Sequence[list[Pixels]], load: Load
) -> list[NDArray[np.float64]]:
    """Warm up all engines, then run them interleaved, each with its own frames."""
    for engine, own_frames in zip(engines, frames, strict=True):
        warm_up(engine, own_frames, min_s=0)
    queries = [cycle_frames(engine.infer, own_frames) for engine, own_frames in zip(engines, frames, strict=True)]
    return run_interleaved(queries, load)


def format_tables(results: Mapping[str, Any]) -> str:
    """Return the tables of all questions that were asked, in Markdown; `results` is `scaling` of schema.json."""
    engine = results["engine"]
    parts = [f"Engine: {engine['name']}. Backend: {engine['backend']}. Source: {results['source']}."]
    if results["resolution"]:
        parts += _format_sizes(results["resolution"])
    if results["threads"]:
        parts.append(format_table(_THREADS_COLUMNS, map(_threads_row, results["threads"]["points"])))
    if results["streams"]:
        parts.append(format_table(_STREAMS_COLUMNS, map(_streams_row, results["streams"]["points"])))
    return "\n\n".join(parts)


def _format_sizes(resolution: Mapping[str, Any]) -> Iterable[str]:
    yield format_table(_SIZES_COLUMNS, map(_size_row, resolution["points"]))
    if line := resolution["line"]:
        fixed, slope = format_number(line["fixed_ms"]), format_number(line["ms_per_megapixel"])
        yield (
            f"Line fit: ms = {fixed} + {slope} x megapixels; R2 {line['r2']:.4f}, "
            f"largest deviation {line['worst']:.0%}."
        )


def _size_row(point: Mapping[str, Any]) -> list[str]:
    host = point["host"]
    times = [format_number(host[name]) for name in ("p50_ms", "p90_ms", "mad_ms")]
    return ["{}x{}".format(*point["size"]), format_number(point["megapixels"]), *times, str(host["n"])]


def _threads_row(point: Mapping[str, Any]) -> list[str]:
    host = point["host"]
    times = [format_number(host[name]) for name in ("p50_ms", "p90_ms")]
    return [str(point["threads"]), *times, f"{point['speedup']:.2f}", str(host["n"])]


def _streams_row(point: Mapping[str, Any]) -> list[str]:
    rates = [format_number(point[name]) for name in ("fps", "slowest_fps")]
    return [str(point["streams"]), str(point["threads_each"]), *rates]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.scaling`."""
    parser = CommandParser("benchmarks.scaling", description=__doc__.splitlines()[0])
    powers_of_two = sorted({2**power for power in range(8) if 2**power <= count_cores()} | {count_cores()})
    group = parser.add_argument_group("engine and frames")
    group.add_argument(
        "--engine",
        default=str(BUNDLED),
        metavar="E[@PROVIDER]",
        help="engine file, with an execution provider if wanted (default: the bundled engine)",
    )
    group.add_argument(
        "--source",
        default="clip",
        metavar="S",
        help="source of the frames: clip (the demo clip), synthetic (noise), a video, or a folder of images "
        "(default: clip)",
    )
    group = parser.add_argument_group("what is varied")
    group.add_argument(
        "--what",
        choices=QUESTIONS,
        action="append",
        help="quantity to vary; repeat the option for more (default: all three)",
    )
    group.add_argument(
        "--sizes",
        type=parse_size,
        nargs="+",
        default=list(SIZES),
        metavar="WxH",
        help="frame sizes in pixels for the resolution (default: 320x180 to 1920x1080, five sizes)",
    )
    group.add_argument(
        "--size",
        type=parse_size,
        default=(640, 360),
        metavar="WxH",
        help="frame size in pixels for threads and streams (default: 640x360)",
    )
    group.add_argument(
        "--threads",
        type=whole_number_in(1, 1024),
        nargs="+",
        default=powers_of_two,
        metavar="N",
        help="numbers of CPU threads (default: powers of two up to the number of cores, and that number)",
    )
    group.add_argument(
        "--streams",
        type=whole_number_in(1, 1024),
        nargs="+",
        default=[1, 2, 4],
        metavar="N",
        help="numbers of streams (default: 1 2 4)",
    )
    group = parser.add_argument_group("load")
    group.add_argument(
        "--min-queries",
        type=whole_number_in(1, 10**9),
        default=40,
        metavar="N",
        help="minimum number of measured frames for each point (default: 40)",
    )
    group.add_argument(
        "--min-duration",
        type=number_in(0, 86_400),
        default=3.0,
        metavar="S",
        help="minimum measured time for each point, in seconds (default: 3)",
    )
    group = parser.add_argument_group("output and errors")
    group.add_argument("--json", type=Path, metavar="F", help="result file to write (see schema.json)")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.scaling` and return its exit code."""
    options = parse(arguments)

    def command(_: object) -> int:
        questions = options.what or QUESTIONS
        load = Load(min_queries=options.min_queries, min_duration_s=options.min_duration, warm_up_s=0)
        require_writable(options.json)
        machine = describe_machine()
        with ExitStack() as stack:
            engine = _open(stack, options.engine)
            facts = {"name": label_engines([options.engine])[0], **describe_engine(options.engine, engine)}
            name = pin_provider(options.engine, engine)
        frames = load_frames(options.source, options.size)
        results: dict[str, Any] = {
            "engine": facts,
            "source": anonymize_source(options.source),
            "size": list(options.size),
            "cores": count_cores(),
            "load": load.to_json(),
            **dict.fromkeys(QUESTIONS),
        }
        if "resolution" in questions:
            results["resolution"] = measure_sizes(name, options.sizes, options.source, load)
        if "threads" in questions:
            results["threads"] = measure_threads(name, options.threads, frames, load)
        if "streams" in questions:
            results["streams"] = measure_streams(name, options.streams, frames, load)
        print(format_tables(results))
        if options.json:
            text = format_command("benchmarks.scaling", arguments)
            write_results(options.json, kind="scaling", results=results, command=text, machine=machine)
        return 0

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
