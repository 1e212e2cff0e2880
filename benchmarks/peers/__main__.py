"""`python -m benchmarks.peers --generator G`: compare the toolkit with other ways to run the same network.

Every implementation takes uint8[1, H, W, 3] BGR and returns the same. Before it is timed, its output has to be that of
PyTorch. All are timed in alternating runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.assets import DEMO_BLURRED, DEMO_SHARP
from benchmarks.harness.clock import WallClock, examine_clock, require_fine_clock
from benchmarks.harness.engines import load_frames
from benchmarks.harness.results import format_command, require_writable, write_results
from benchmarks.harness.scenarios import BLOCK, Load, Query, cycle_frames, run_interleaved
from benchmarks.harness.statistics import MIN_ROUNDS, summarize
from benchmarks.harness.system_info import count_cores, describe_machine
from benchmarks.peers.baselines import (
    Implementation,
    Network,
    Restorer,
    list_baselines,
    list_toolkit_engines,
    make_eager,
    wrap_with_numpy,
)
from benchmarks.peers.cuda_baselines import list_cuda_baselines
from benchmarks.peers.networks import BUNDLED_NETWORK, WORK, load_network
from benchmarks.peers.output_check import OutputCheck, check_output
from benchmarks.peers.ratios import compute_speedups
from benchmarks.peers.table import format_tables
from runtime.arguments import number_in, parse_size, whole_number_in
from runtime.cli import run_cli, say
from runtime.engines.base import first_line
from runtime.engines.timing import PAUSE_S
from runtime.frame import Pixels, Size
from runtime.parser import CommandParser
from train.models import GENERATORS

CHECKED_FRAMES = 4
"""Number of frames, evenly spread over the timed ones, on which the output is checked. They also are the warm-up."""
_SLOW_S = 0.25
"""Seconds of a frame above which an implementation gets one query in a block instead of several."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An implementation that was timed, rejected (see `check`), or is not available."""

    implementation: Implementation
    check: OutputCheck | None = None
    not_available: str = ""
    """Reason why it cannot run."""
    rounds_ms: NDArray[np.float64] | None = None
    """Times in milliseconds, float64[rounds, queries]."""


def measure(networks: Sequence[Network], *, size: Size, threads: int, duration_s: float) -> dict[str, Any]:
    """Check and time all implementations of the first network, and the INT8 engines of the others.

    `duration_s`: approximate time of the measurement. Returns `peers` of schema.json.
    """
    clock = examine_clock(WallClock())
    blurred, sharp = load_frames(str(DEMO_BLURRED), size), load_frames(str(DEMO_SHARP), size)
    checked = np.linspace(0, len(blurred) - 1, CHECKED_FRAMES).astype(int)
    checked_blurred, checked_sharp = [blurred[index] for index in checked], [sharp[index] for index in checked]
    outcomes: list[Outcome] = []
    queries: list[Query] = []
    seconds: list[float] = []
    with limit_torch_threads(threads):
        for index, network in enumerate(networks):
            reference = make_eager(network.generator)
            expected = [reference(frame) for frame in checked_blurred]
            for implementation in list_implementations(network, size=size, threads=threads, int8_only=index > 0):
                say(f"checking {implementation.label}")
                restore, outcome = check_implementation(implementation, checked_blurred, expected, checked_sharp)
                outcomes.append(outcome)
                if restore is not None and outcome.check is not None:
                    queries.append(cycle_frames(restore, blurred))
                    seconds.append(outcome.check.seconds)
        block_sizes, rounds = plan_rounds(seconds, duration_s)
        say(f"timing {len(queries)} implementations in {rounds} rounds")
        load = Load(min_queries=1, min_rounds=rounds, min_duration_s=0)
        times_ms = iter(run_interleaved(queries, load, block_sizes=block_sizes))
    outcomes = [_add_times(outcome, times_ms) for outcome in outcomes]
    timed = [(outcome.implementation, outcome.rounds_ms) for outcome in outcomes if outcome.rounds_ms is not None]
    require_fine_clock(clock, min(float(rounds_ms.min()) for _, rounds_ms in timed))
    return {
        "size": list(size),
        "source": "clip",
        "frames": len(blurred),
        "checked_frames": CHECKED_FRAMES,
        "threads": threads,
        "turns": {"pause_ms": 1e3 * PAUSE_S, "rounds": rounds},
        "numpy_ms": round(1e3 * measure_numpy_s(networks[0], blurred), 4),
        "networks": [{"name": network.name, "weights": network.weights} for network in networks],
        "contenders": [describe_outcome(outcome) for outcome in outcomes],
        "ratios": compute_speedups(timed),
    }


def list_implementations(network: Network, *, size: Size, threads: int, int8_only: bool) -> list[Implementation]:
    """List all baselines and toolkit engines of a network, or only its INT8 engines."""
    engines = list_toolkit_engines(network, threads=threads)
    if int8_only:
        return [engine for engine in engines if engine.precision == "int8"]
    cpu_baselines = list_baselines(network, size=size, threads=threads)
    return [*cpu_baselines, *list_cuda_baselines(network, size=size, threads=threads), *engines]


def check_implementation(
    implementation: Implementation, blurred: Sequence[Pixels], expected: Sequence[Pixels], sharp: Sequence[Pixels]
) -> tuple[Restorer | None, Outcome]:
    """Make an implementation and check its output on frames, uint8[1, H, W, 3] BGR each.

    Returns the restorer if it may be timed, else None, and the outcome.
    """
    try:
        restore = implementation.make()
        check = check_output(restore, blurred, expected, sharp, budget_db=implementation.budget_db)
    except Exception as error:  # noqa: BLE001 - a library that fails must not stop the others
        return None, Outcome(implementation=implementation, not_available=first_line(error))
    return restore if check.is_accepted else None, Outcome(implementation=implementation, check=check)


def plan_rounds(seconds: Sequence[float], duration_s: float) -> tuple[list[int], int]:
    """Return the block size of each implementation and the number of rounds.

    `seconds`: time of one frame of each. The rounds take about `duration_s`, but are enough for a verdict.
    """
    block_sizes = [BLOCK if frame_s < _SLOW_S else 1 for frame_s in seconds]
    round_s = sum((block + 1) * frame_s + PAUSE_S for block, frame_s in zip(block_sizes, seconds, strict=True))
    return block_sizes, max(MIN_ROUNDS, round(duration_s / round_s))


def measure_numpy_s(network: Network, frames: Sequence[Pixels]) -> float:
    """Return the median seconds that NumPy takes before and after the plain export on ONNX Runtime and OpenVINO."""
    restore = wrap_with_numpy(network.generator, lambda values: values)
    times_s = []
    for frame in frames:
        began = time.perf_counter()
        restore(frame)
        times_s.append(time.perf_counter() - began)
    return float(np.median(times_s))


def _add_times(outcome: Outcome, times_ms: Iterator[NDArray[np.float64]]) -> Outcome:
    if outcome.check is None or not outcome.check.is_accepted:
        return outcome
    return replace(outcome, rounds_ms=next(times_ms))


def describe_outcome(outcome: Outcome) -> dict[str, Any]:
    """Return an entry of `contenders` in schema.json."""
    implementation, check = outcome.implementation, outcome.check
    facts: dict[str, Any] = {
        "name": implementation.name,
        "network": implementation.network,
        "role": implementation.role,
        "precision": implementation.precision,
        "backend": implementation.backend,
    }
    if check is None:
        return facts | {"status": "not available", "reason": outcome.not_available, "check": None, "host": None}
    scores = {name: value for name, value in asdict(check).items() if name.endswith("_db")}
    if outcome.rounds_ms is None:
        return facts | {"status": "refused", "reason": check.rejection, "check": scores, "host": None}
    host = asdict(summarize(outcome.rounds_ms))
    return facts | {"status": "timed", "reason": None, "check": scores, "host": host}


@contextmanager
def limit_torch_threads(count: int) -> Iterator[None]:
    """Set the number of CPU threads of PyTorch in the body; other libraries get theirs when they are opened."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.peers`."""
    parser = CommandParser("benchmarks.peers", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--generator", choices=GENERATORS, default="two_stage_cnn", help="network (default: two_stage_cnn)")
    add(
        "--checkpoint",
        type=Path,
        metavar="RUN",
        help="published run with the weights (default: the bundled weights for edge, random weights otherwise)",
    )
    add(
        "--versus",
        choices=(BUNDLED_NETWORK, "none"),
        default=BUNDLED_NETWORK,
        help=f"bundled network whose INT8 engines are timed in the same run (default: {BUNDLED_NETWORK})",
    )
    add("--size", type=parse_size, default=(640, 360), metavar="WxH", help="frame size in pixels (default: 640x360)")
    add(
        "--duration",
        type=number_in(1e-3, 86_400),
        default=60.0,
        metavar="S",
        help="approximate time of timing in seconds (default: 60)",
    )
    add(
        "--threads",
        type=whole_number_in(1, 1024),
        default=count_cores(),
        metavar="N",
        help="CPU threads of each implementation (default: one for each core)",
    )
    add("--work", type=Path, default=WORK, metavar="DIR", help=f"folder that keeps exported engines (default: {WORK})")
    add("--json", type=Path, metavar="F", help="result file to write (see schema.json)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.peers` and return its exit code."""
    options = parse(arguments)

    def command(_: object) -> int:
        require_writable(options.json)
        machine = describe_machine()
        networks = [load_network(options.generator, checkpoint=options.checkpoint, work=options.work)]
        if options.versus != "none" and options.generator != BUNDLED_NETWORK:
            networks.append(load_network(BUNDLED_NETWORK, checkpoint=None))
        results = measure(networks, size=options.size, threads=options.threads, duration_s=options.duration)
        print(format_tables(results))
        if options.json:
            text = format_command("benchmarks.peers", arguments)
            write_results(options.json, kind="peers", results=results, command=text, machine=machine)
        return 0

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
