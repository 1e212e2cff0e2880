"""`python -m benchmarks.scaling`: how the cost of a frame grows with its size, with threads, and with streams.

Sizes and numbers of threads take turns, as engines do in `benchmarks.latency`. Streams are engines of their own in
threads of one process, each with its share of the CPU's cores; where engines can be shared, that may be cheaper.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np

from benchmarks.harness.engines import facts, frames, labels, opened, resolved
from benchmarks.harness.results import command_line, prepare, write_results
from benchmarks.harness.scenarios import Load, asking, in_turns, offline, warm_up
from benchmarks.harness.statistics import line, summary
from benchmarks.harness.system_info import cores
from benchmarks.harness.system_info import facts as machine_facts
from benchmarks.latency.layers import ROUNDS, say
from benchmarks.latency.table import number
from runtime.arguments import parse_size
from runtime.cli import report_error
from runtime.engines import BUNDLED, Engine
from runtime.errors import DeblurError
from runtime.frame import Pixels, Size

SIZES: tuple[Size, ...] = ((320, 180), (640, 360), (960, 540), (1280, 720), (1920, 1080))
WHAT = ("resolution", "threads", "streams")


def resolution(name: str, sizes: Sequence[Size], source: str, load: Load) -> dict[str, Any]:
    """Milliseconds of each size, and the line through them."""
    with ExitStack() as last:
        engines = [_opened(last, name) for _ in sizes]  # one each: an engine keeps only so many sizes ready
        pictures = [frames(source, each) for each in sizes]
        say(f"sizes: {', '.join('{}x{}'.format(*each) for each in sizes)}")
        rounds = _rounds(engines, pictures, load)
    points = [
        {"size": list(each), "megapixels": each[0] * each[1] / 1e6, "host": asdict(summary(taken))}
        for each, taken in zip(sizes, rounds, strict=True)
    ]
    fitted = line([each["megapixels"] for each in points], [each["host"]["p50_ms"] for each in points])
    return {"points": points, "line": asdict(fitted) if fitted else None}


def threads(name: str, counts: Sequence[int], pictures: list[Pixels], load: Load) -> dict[str, Any]:
    """Milliseconds with so many threads, and how many times faster than with the first."""
    with ExitStack() as last:
        engines = [_opened(last, name, threads=count) for count in counts]
        say(f"threads: {', '.join(map(str, counts))}")
        rounds = _rounds(engines, [pictures] * len(counts), load)
    alone_ms = float(np.median(rounds[0]))
    return {
        "points": [
            {
                "threads": count,
                "host": asdict(summary(taken)),
                "speedup": round(alone_ms / float(np.median(taken)), 4),
            }
            for count, taken in zip(counts, rounds, strict=True)
        ]
    }


def streams(name: str, counts: Sequence[int], pictures: list[Pixels], load: Load) -> dict[str, Any]:
    """Frames a second of so many engines at once: of all together, and of the slowest."""
    shares = [max(1, cores() // count) for count in counts]
    rates: list[list[list[float]]] = [[] for _ in counts]
    for round_number in range(ROUNDS):
        say(f"streams: {', '.join(map(str, counts))}, round {round_number + 1} of {ROUNDS}")
        for index, (count, share) in enumerate(zip(counts, shares, strict=True)):
            with ExitStack() as last:
                engines = [_opened(last, name, threads=share) for _ in range(count)]
                for engine in engines:
                    warm_up(engine, pictures, least_s=0)
                rates[index].append(_at_once(engines, pictures, duration_s=load.min_duration_s / ROUNDS))
    return {
        "points": [
            {
                "streams": count,
                "threads_each": share,
                "fps": round(float(np.median([sum(each) for each in taken])), 3),
                "slowest_fps": round(float(np.median([min(each) for each in taken])), 3),
                "rounds_fps": [round(sum(each), 3) for each in taken],
            }
            for count, share, taken in zip(counts, shares, rates, strict=True)
        ]
    }


def _at_once(engines: Sequence[Engine], pictures: list[Pixels], *, duration_s: float) -> list[float]:
    """Frames a second of each, all started together; raises the first error of any."""
    together = Barrier(len(engines))
    rates = [0.0] * len(engines)
    errors: list[BaseException] = []

    def body(index: int, engine: Engine) -> None:
        try:
            together.wait()
            done, seconds = offline(engine, pictures, duration_s=duration_s)
            rates[index] = done / seconds
        except BaseException as error:  # noqa: BLE001 - raised below
            errors.append(error)

    workers = [Thread(target=body, args=each, name=f"stream {each[0]}") for each in enumerate(engines)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return rates


def _opened(last: ExitStack, name: str, *, threads: int = 0) -> Engine:
    engine = opened(name, threads=threads)
    last.callback(engine.close)
    return engine


def _rounds(engines: Sequence[Engine], pictures: Sequence[list[Pixels]], load: Load) -> list[Any]:
    for engine, each in zip(engines, pictures, strict=True):
        warm_up(engine, each, least_s=0)
    return in_turns([asking(engine.infer, each) for engine, each in zip(engines, pictures, strict=True)], load)


def table(results: Mapping[str, Any]) -> str:
    """What grew how, in Markdown."""
    engine = results["engine"]
    parts = [f"{engine['name']}, {engine['backend']}, {results['source']}"]
    for what, rows in (("resolution", _sizes), ("threads", _threads), ("streams", _streams)):
        if results[what]:
            parts.append("\n".join(rows(results[what])))
    return "\n\n".join(parts)


def _sizes(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| size | megapixels | p50 ms | p90 | MAD | N |", "|---|---|---|---|---|---|")
    for each in found["points"]:
        host = each["host"]
        cells = (number(each["megapixels"]), *(number(host[key]) for key in ("p50_ms", "p90_ms", "mad_ms")))
        yield f"| {'{}x{}'.format(*each['size'])} | {' | '.join(cells)} | {host['n']} |"
    if told := found["line"]:
        fixed, slope = number(told["fixed_ms"]), number(told["ms_per_megapixel"])
        yield f"\nms = {fixed} + {slope} x megapixels; R2 {told['r2']:.4f}, off by {told['worst']:.0%} at most"


def _threads(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| threads | p50 ms | p90 | times faster | N |", "|---|---|---|---|---|")
    for each in found["points"]:
        host = each["host"]
        cells = (number(host["p50_ms"]), number(host["p90_ms"]), f"{each['speedup']:.2f}", str(host["n"]))
        yield f"| {each['threads']} | {' | '.join(cells)} |"


def _streams(found: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| streams | threads each | fps together | fps of the slowest |", "|---|---|---|---|")
    for each in found["points"]:
        cells = (str(each["threads_each"]), number(each["fps"]), number(each["slowest_fps"]))
        yield f"| {each['streams']} | {' | '.join(cells)} |"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    add = parser.add_argument
    known = sorted({2**power for power in range(8) if 2**power <= cores()} | {cores()})
    add("--engine", default=str(BUNDLED), metavar="E[@PROVIDER]", help="an engine file (default: the bundled one)")
    add("--what", choices=WHAT, action="append", help="again for more (default: all three)")
    add("--sizes", type=parse_size, nargs="+", default=list(SIZES), metavar="WxH", help="of frames")
    add("--size", type=parse_size, default=(640, 360), metavar="WxH", help="for threads and streams (default: 640x360)")
    add("--threads", type=int, nargs="+", default=known, metavar="N", help="(default: 1, 2, 4, ... every core)")
    add("--streams", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="(default: 1 2 4)")
    add("--source", default="clip", metavar="S", help="clip (the demo's), synthetic (noise), a video or pictures")
    add("--min-queries", type=int, default=40, metavar="N", help="of each point at least (default: 40)")
    add("--min-duration", type=float, default=3.0, metavar="S", help="and for so many seconds (default: 3)")
    add("--json", type=Path, metavar="F", help="write a result file (schema.json)")
    options = parser.parse_args(arguments)
    if min(*options.threads, *options.streams, options.min_queries) < 1 or options.min_duration < 0:
        parser.error("threads, streams and queries must be at least 1, and times not negative")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    what = options.what or WHAT
    load = Load(min_queries=options.min_queries, min_duration_s=options.min_duration, warm_up_s=0)
    try:
        prepare(options.json)
        machine = machine_facts()
        with ExitStack() as last:
            engine = _opened(last, options.engine)
            told = {"name": labels([options.engine])[0], **facts(options.engine, engine)}
            name = resolved(options.engine, engine)
        pictures = frames(options.source, options.size)
        results = {
            "engine": told,
            "source": options.source if options.source in ("clip", "synthetic") else "other",
            "size": list(options.size),
            "cores": cores(),
            "load": {name: value for name, value in asdict(load).items() if name != "min_rounds"},
            "resolution": resolution(name, options.sizes, options.source, load) if "resolution" in what else None,
            "threads": threads(name, options.threads, pictures, load) if "threads" in what else None,
            "streams": streams(name, options.streams, pictures, load) if "streams" in what else None,
        }
        print(table(results))
        if options.json:
            command = command_line("benchmarks.scaling", arguments)
            write_results(options.json, kind="scaling", results=results, command=command, machine=machine)
    except DeblurError as error:
        return report_error(error, debug=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
