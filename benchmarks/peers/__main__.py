"""`python -m benchmarks.peers --generator G`: one network through what users would run instead, and the toolkit.

Every contender takes uint8[1, H, W, 3] BGR and gives the same; before it is timed it has to give the picture that
PyTorch gives. All are timed in turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.assets import DEMO_BLURRED, DEMO_SHARP
from benchmarks.harness.clock import WallClock, examine, require_fine
from benchmarks.harness.engines import frames
from benchmarks.harness.results import command_line, prepare, write_results
from benchmarks.harness.scenarios import BLOCK, PAUSE_S, Load, Query, asking, in_turns
from benchmarks.harness.statistics import LEAST_ROUNDS, summary
from benchmarks.harness.system_info import cores
from benchmarks.harness.system_info import facts as machine_facts
from benchmarks.latency.layers import say
from benchmarks.peers.baselines import Contender, Network, Restorer, eager, in_numpy, peers, toolkit
from benchmarks.peers.cuda_baselines import cuda_peers
from benchmarks.peers.networks import BUNDLED_NETWORK, WORK, network
from benchmarks.peers.output_check import Check, checked
from benchmarks.peers.ratios import named_ratios
from benchmarks.peers.table import tables
from runtime.arguments import parse_size
from runtime.cli import report_error
from runtime.engines.base import first_line
from runtime.errors import DeblurError
from runtime.frame import Pixels, Size
from train.models import GENERATORS

CHECKED = 4
"""Frames, spread over those that are timed, that a contender is checked on; they warm it up as well."""
_SLOW_S = 0.25
"""Where a contender takes longer, it has one query in its turn instead of several."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a contender: timed, refused (`check` says why), or not available."""

    contender: Contender
    check: Check | None = None
    not_available: str = ""
    rounds_ms: NDArray[np.float64] | None = None
    """float64[rounds, queries]."""


def run(networks: Sequence[Network], *, size: Size, threads: int, duration_s: float) -> dict[str, Any]:
    """Check and time all contenders of the first network and the INT8 engines of the others; `peers` in schema.json."""
    clock = examine(WallClock())
    pictures, truth = frames(str(DEMO_BLURRED), size), frames(str(DEMO_SHARP), size)
    picked = np.linspace(0, len(pictures) - 1, CHECKED).astype(int)
    outcomes: list[Outcome] = []
    queries: list[Query] = []
    seconds: list[float] = []
    with cpu_threads(threads):
        for index, each in enumerate(networks):
            reference = eager(each.generator)
            expected = [reference(pictures[at]) for at in picked]
            for contender in contenders(each, size=size, threads=threads, all_of_them=index == 0):
                say(f"checking {contender.label}")
                restore, outcome = tried(
                    contender, [pictures[at] for at in picked], expected, [truth[at] for at in picked]
                )
                outcomes.append(outcome)
                if restore is not None and outcome.check is not None:
                    queries.append(asking(restore, pictures))
                    seconds.append(outcome.check.seconds)
        blocks, rounds = plan(seconds, duration_s)
        say(f"timing {len(queries)} contenders in {rounds} rounds")
        timed = iter(in_turns(queries, Load(min_queries=1, min_rounds=rounds, min_duration_s=0), blocks=blocks))
    outcomes = [timed_outcome(each, timed) for each in outcomes]
    require_fine(clock, min(float(each.rounds_ms.min()) for each in outcomes if each.rounds_ms is not None))
    return {
        "size": list(size),
        "source": "clip",
        "frames": len(pictures),
        "checked_frames": CHECKED,
        "threads": threads,
        "turns": {"pause_ms": 1e3 * PAUSE_S, "rounds": rounds},
        "numpy_ms": round(1e3 * around_s(networks[0], pictures), 4),
        "networks": [{"name": each.name, "weights": each.weights} for each in networks],
        "contenders": [facts(each) for each in outcomes],
        "ratios": named_ratios([(each.contender, each.rounds_ms) for each in outcomes if each.rounds_ms is not None]),
    }


def contenders(network: Network, *, size: Size, threads: int, all_of_them: bool) -> list[Contender]:
    ours = toolkit(network, threads=threads)
    if not all_of_them:
        return [each for each in ours if each.precision == "int8"]
    return [*peers(network, size=size, threads=threads), *cuda_peers(network, size=size, threads=threads), *ours]


def tried(
    contender: Contender, blurred: Sequence[Pixels], expected: Sequence[Pixels], truth: Sequence[Pixels]
) -> tuple[Restorer | None, Outcome]:
    """A contender that gives the picture, ready to be timed; or None, and why not. All uint8[1, H, W, 3] BGR."""
    try:
        restore = contender.make()
        check = checked(restore, blurred, expected, truth, budget_db=contender.budget_db)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, the others go on
        return None, Outcome(contender=contender, not_available=first_line(error))
    return restore if check.passed else None, Outcome(contender=contender, check=check)


def plan(seconds: Sequence[float], duration_s: float) -> tuple[list[int], int]:
    """Queries of each in a round, by what a frame takes, and rounds: for about so long, but enough for a verdict."""
    blocks = [BLOCK if each < _SLOW_S else 1 for each in seconds]
    round_s = sum((block + 1) * each + PAUSE_S for block, each in zip(blocks, seconds, strict=True))
    return blocks, max(LEAST_ROUNDS, round(duration_s / round_s))


def around_s(network: Network, pictures: Sequence[Pixels]) -> float:
    """Median seconds of what NumPy does before and after the plain export on ONNX Runtime and OpenVINO."""
    restore = in_numpy(network.generator, lambda planes: planes)
    times = []
    for picture in pictures:
        began = time.perf_counter()
        restore(picture)
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def timed_outcome(outcome: Outcome, timed: Iterator[NDArray[np.float64]]) -> Outcome:
    if outcome.check is None or not outcome.check.passed:
        return outcome
    return Outcome(contender=outcome.contender, check=outcome.check, rounds_ms=next(timed))


def facts(outcome: Outcome) -> dict[str, Any]:
    contender, check = outcome.contender, outcome.check
    told: dict[str, Any] = {
        "name": contender.name,
        "network": contender.network,
        "role": contender.role,
        "precision": contender.precision,
        "backend": contender.backend,
    }
    if check is None:
        return told | {"status": "not available", "reason": outcome.not_available, "check": None, "host": None}
    shown = {name: value for name, value in asdict(check).items() if name not in ("passed", "complaint", "seconds")}
    if outcome.rounds_ms is None:
        return told | {"status": "refused", "reason": check.complaint, "check": shown, "host": None}
    host = asdict(summary(outcome.rounds_ms))
    return told | {"status": "timed", "reason": None, "check": shown, "host": host}


@contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """PyTorch's; the others are told when they are made."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--generator", choices=GENERATORS, default="two_stage_cnn", help="(default: two_stage_cnn)")
    add("--checkpoint", type=Path, metavar="RUN", help="its weights (default: bundled for edge, else random ones)")
    add("--versus", choices=(BUNDLED_NETWORK, "none"), default=BUNDLED_NETWORK, help="the bundled engine beside it")
    add("--size", type=parse_size, default=(640, 360), metavar="WxH", help="of the frames (default: 640x360)")
    add("--duration", type=float, default=60.0, metavar="S", help="of timing, about (default: 60)")
    add("--threads", type=int, default=cores(), metavar="N", help="CPU threads of each (default: every core)")
    add("--work", type=Path, default=WORK, metavar="DIR", help=f"keeps exports for the next run (default: {WORK})")
    add("--json", type=Path, metavar="F", help="write a result file (schema.json)")
    options = parser.parse_args(arguments)
    if options.duration <= 0 or options.threads < 1:
        parser.error("a positive duration, and at least one thread")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        prepare(options.json)
        machine = machine_facts()
        networks = [network(options.generator, checkpoint=options.checkpoint, work=options.work)]
        if options.versus != "none" and options.generator != BUNDLED_NETWORK:
            networks.append(network(BUNDLED_NETWORK, checkpoint=None))
        results = run(networks, size=options.size, threads=options.threads, duration_s=options.duration)
        print(tables(results))
        if options.json:
            command = command_line("benchmarks.peers", arguments)
            write_results(options.json, kind="peers", results=results, command=command, machine=machine)
    except DeblurError as error:
        return report_error(error, debug=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
