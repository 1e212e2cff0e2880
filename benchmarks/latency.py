"""`python -m benchmarks.latency --engine A --engine B`: what engines cost, and how they stand to one another.

All engines run in turn, in short blocks, over and over (A B A B), so that a machine that grows
slower meanwhile does so for each of them. A ratio is the median over rounds of what the blocks of
one round took; its interval is a bootstrap over rounds (Efron 1979), so it holds the drift too.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.arguments import size
from runtime.engines import BUNDLED, PROVIDERS, Engine, open_engine
from runtime.errors import DeblurError, UsageError
from runtime.frame import Pixels
from runtime.sources.images import read_picture

QUERIES = 4
"""In a block."""
PAUSE_S = 0.03
"""Before a block: threads of the engine before it spin for a while after their last frame."""


@dataclass(frozen=True)
class Measured:
    """One engine: every query, in milliseconds, by round."""

    name: str
    backend: str
    rounds_ms: NDArray[np.float64]
    """float64[rounds, queries]."""

    def percentile(self, share: float) -> float:
        return float(np.percentile(self.rounds_ms, share))


def measure(engines: list[Engine], names: list[str], frame: Pixels, *, duration_s: float) -> list[Measured]:
    """Run all engines on `frame`, uint8[1, H, W, 3] BGR, in turn for about so long."""
    for engine in engines:
        for _ in range(3):
            engine.infer(frame)
    rounds: list[list[list[float]]] = []
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end or len(rounds) < 5:
        rounds.append([_block(engine, frame) for engine in engines])
    taken = np.array(rounds)
    return [
        Measured(name, engine.backend, taken[:, index])
        for index, (name, engine) in enumerate(zip(names, engines, strict=True))
    ]


def ratio(one: Measured, other: Measured, *, seed: int = 0) -> tuple[float, float, float]:
    """How many times longer `one` takes than `other`: median over rounds, and the ends of a 95 % interval."""
    by_round = np.median(one.rounds_ms, axis=1) / np.median(other.rounds_ms, axis=1)
    picks = np.random.default_rng(seed).integers(0, len(by_round), (2000, len(by_round)))
    low, high = np.percentile(np.median(by_round[picks], axis=1), [2.5, 97.5])
    return float(np.median(by_round)), float(low), float(high)


def _block(engine: Engine, frame: Pixels) -> list[float]:
    time.sleep(PAUSE_S)
    engine.infer(frame)  # wakes its threads
    times = []
    for _ in range(QUERIES):
        began = time.perf_counter_ns()
        engine.infer(frame)
        times.append((time.perf_counter_ns() - began) / 1e6)
    return times


def table(measured: list[Measured]) -> str:
    """Milliseconds a frame, and how many times faster than the first engine each is."""
    lines = [
        "| engine | runs on | p50 ms | p90 | p99 | N | times faster than the first (95 %) |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in measured:
        p50, p90, p99 = (each.percentile(share) for share in (50, 90, 99))
        versus = "" if each is measured[0] else "{:.2f} ({:.2f} to {:.2f})".format(*ratio(measured[0], each))
        lines.append(
            f"| {each.name} | {each.backend} | {p50:.1f} | {p90:.1f} | {p99:.1f} | {each.rounds_ms.size} | {versus} |"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--engine", action="append", metavar="E[@PROVIDER]", help="an engine file; again for each to compare")
    add("--size", type=size, default=(640, 360), metavar="WxH", help="of the frames (default: 640x360)")
    add("--picture", type=Path, metavar="P", help="what the frame shows, resized (default: noise)")
    add("--duration", type=float, default=20.0, metavar="S", help="seconds for all engines together (default: 20)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    names = options.engine or [str(BUNDLED)]
    try:
        frame = _frame(options)
        engines = [_opened(name) for name in names]
        measured = measure(
            engines, [Path(name.partition("@")[0]).name for name in names], frame[None], duration_s=options.duration
        )
    except DeblurError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(measured))
    return 0


def _frame(options: argparse.Namespace) -> Pixels:
    width, height = options.size
    if options.picture is None:
        return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(read_picture(options.picture), (width, height), interpolation=cv2.INTER_AREA))


def _opened(name: str) -> Engine:
    path, _, provider = name.partition("@")
    wanted = next((each for each in PROVIDERS if each == (provider or "auto")), None)
    if wanted is None:
        raise UsageError(f"no such provider: {provider}", hint=f"use one of {', '.join(PROVIDERS)}")
    return open_engine(Path(path), provider=wanted)


if __name__ == "__main__":
    sys.exit(main())
