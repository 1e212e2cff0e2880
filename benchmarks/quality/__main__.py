"""`python -m benchmarks.quality`: compare restored frames and the blurred input with ground truth.

Reports PSNR, SSIM and flicker, the gain by level of blur, and the frames that gain least. The input is a clip or a
folder of pairs. Engines run during the comparison, as `python -m runtime.video` runs them, or have restored the frames
before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from benchmarks.harness.engines import describe_engine, label_engines, number_duplicates, open_named_engine
from benchmarks.harness.results import format_command, require_writable, write_results
from benchmarks.harness.statistics import summarize
from benchmarks.harness.system_info import describe_machine
from benchmarks.quality.classical import METHODS, ClassicalEngine
from benchmarks.quality.ground_truth import Sample, read_clips, read_pairs
from benchmarks.quality.scores import ScoreCollector, WorstFrames, summarize_scores
from benchmarks.quality.table import format_tables
from runtime.arguments import parse_size
from runtime.cli import run_cli
from runtime.engines import BUNDLED, Engine
from runtime.engines.tile_layout import OVERLAP_PX
from runtime.engines.tiled import TiledEngine
from runtime.engines.timing import PAUSE_S
from runtime.files import output_error
from runtime.frame import Pixels, Size
from runtime.parser import CommandParser

if TYPE_CHECKING:  # it needs torch, which only --perceptual needs
    from train.perceptual import PerceptualMeter


@dataclass
class Restorer:
    """An engine, or a clip that was restored before, with its scores."""

    name: str
    engine: Engine | None = None
    """None for a restored clip: its frames are part of each sample."""
    facts: dict[str, Any] | None = None
    """Identity of an engine that is a file."""
    scores: ScoreCollector = field(default_factory=ScoreCollector)
    worst: WorstFrames = field(default_factory=WorstFrames)
    times_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RestorerOptions:
    """Restorers that the command line names; without any, the bundled engine."""

    engines: list[str]
    restored: list[str]
    classical: bool
    tile: Size | None
    overlap_px: int
    threads: int


def measure(
    samples: Iterable[Sample],
    restorers: Sequence[Restorer],
    *,
    is_clip: bool,
    perceptual: PerceptualMeter | None = None,
) -> dict[str, Any]:
    """Compare restorers with the ground truth; return `quality` of schema.json without `source`.

    The `restored` images of a sample belong to the restorers without an engine, in the same order. `is_clip`: whether
    the samples are consecutive frames, so that flicker can be measured. Raises the errors of engines and sources.
    """
    blurred = ScoreCollector(perceptual)
    for restorer in restorers:
        restorer.scores = ScoreCollector(perceptual)
    has_one_engine = sum(restorer.engine is not None for restorer in restorers) == 1
    for sample in samples:
        before = blurred.add(sample.name, sample.blurred, sample.sharp, is_consecutive=is_clip)
        restored = iter(sample.restored)
        for restorer in restorers:
            if restorer.engine is None:
                image = next(restored)
            else:
                if not has_one_engine:
                    time.sleep(PAUSE_S)  # threads of the previous engine keep spinning for a while
                image = _run_engine(restorer, restorer.engine, sample.blurred)
            after = restorer.scores.add(sample.name, image, sample.sharp, is_consecutive=is_clip)
            restorer.worst.add(sample.name, after.psnr_db - before.psnr_db, (sample.blurred, image, sample.sharp))
    return {
        "frames": len(blurred.scores),
        "blurred": summarize_scores(blurred, blurred),
        "restored": [_summarize_restorer(restorer, blurred) for restorer in restorers],
    }


def _run_engine(restorer: Restorer, engine: Engine, blurred: Pixels) -> Pixels:
    began = time.perf_counter()
    # A tiled engine converts the image for an engine that takes planes.
    image: Pixels = engine(blurred) if isinstance(engine, TiledEngine) else engine.infer(blurred[np.newaxis])[0]
    restorer.times_ms.append(1e3 * (time.perf_counter() - began))
    return image


def _summarize_restorer(restorer: Restorer, blurred: ScoreCollector) -> dict[str, Any]:
    scores = summarize_scores(restorer.scores, blurred)
    host = asdict(summarize(restorer.times_ms)) if restorer.times_ms else None
    worst = [{"frame": name, "gain_db": round(gain_db, 4)} for name, gain_db, _ in restorer.worst.ranked()]
    return {
        "name": restorer.name,
        "engine": restorer.facts,
        "host": host,
        "gain_db_per_ms": round(scores["gain_db"] / host["p50_ms"], 6) if host else None,
        **scores,
        "worst": worst,
    }


def write_worst(restorers: Sequence[Restorer], folder: Path) -> None:
    """Write the worst frames as PNG files, blurred, restored and sharp side by side, in one folder for each restorer.

    Raises OutputError if they cannot be written.
    """
    for restorer in restorers:
        place = folder / restorer.name.replace("/", "_")
        try:
            place.mkdir(parents=True, exist_ok=True)
            for rank, (name, gain_db, image) in enumerate(restorer.worst.ranked(), start=1):
                png = cv2.imencode(".png", image)[1]
                (place / f"{rank:02}_{name}_{gain_db:+.2f}dB.png").write_bytes(png.tobytes())
        except OSError as error:
            raise output_error(place, error) from error


def open_restorers(options: RestorerOptions, stack: ExitStack) -> list[Restorer]:
    """Open restored clips, engines and classical methods, in this order; `stack` closes the engines."""
    names = list(options.engines)
    if not (names or options.restored or options.classical):
        names = [str(BUNDLED)]
    restorers = [Restorer(Path(name).name) for name in options.restored]
    for name, label in zip(names, label_engines(names), strict=True):
        engine = open_named_engine(name, threads=options.threads)
        stack.callback(engine.close)
        tiled = TiledEngine(engine, tile=options.tile, overlap_px=options.overlap_px)
        facts = {key: value for key, value in describe_engine(name, engine).items() if key != "slots"}
        restorers.append(Restorer(label, tiled, facts | {"backend": tiled.backend}))
    if options.classical:
        restorers += [Restorer(name, ClassicalEngine(name, method)) for name, method in METHODS.items()]
    for restorer, name in zip(restorers, number_duplicates([restorer.name for restorer in restorers]), strict=True):
        restorer.name = name  # names rows of tables and folders, so it has to be unique
    return restorers


def load_perceptual(weights: str) -> PerceptualMeter:
    """Return the meter of `--perceptual`; raises UsageError without the weights of LPIPS (empty: the default file)."""
    from train.perceptual import PerceptualMeter  # noqa: PLC0415 - only this measurement needs torch

    return PerceptualMeter(weights or None)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.quality`."""
    parser = CommandParser("benchmarks.quality", description=__doc__.splitlines()[0])
    group = parser.add_argument_group("input (a clip or pairs)")
    group.add_argument("--blurred", metavar="CLIP", help="blurred clip: a video or a folder of its frames")
    group.add_argument("--sharp", metavar="CLIP", help="ground truth of the blurred clip")
    group.add_argument("--pairs", type=Path, metavar="DIR", help="folder with image pairs in blur/ and sharp/")
    group = parser.add_argument_group("what is compared (default: the bundled engine)")
    group.add_argument(
        "--restored",
        action="append",
        default=[],
        metavar="CLIP",
        help="clip or folder that was restored before; repeat the option for more",
    )
    group.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="E[@PROVIDER]",
        help="engine file to run, with an execution provider if wanted; repeat the option for more",
    )
    group.add_argument(
        "--classical", action="store_true", help="also compare Wiener, Richardson-Lucy and unsharp masking"
    )
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--tile", type=parse_size, metavar="WxH", help="tile size of engines in pixels (default: the whole frame)"
    )
    group.add_argument(
        "--overlap",
        type=int,
        default=OVERLAP_PX,
        metavar="PX",
        help=f"overlap of tiles in pixels (default: {OVERLAP_PX})",
    )
    group.add_argument(
        "--threads", type=int, default=0, metavar="N", help="CPU threads of each engine (default: one for each core)"
    )
    group = parser.add_argument_group("scores")
    group.add_argument(
        "--perceptual",
        nargs="?",
        const="",
        metavar="WEIGHTS",
        help="also measure LPIPS, NIQE and the strength of a grid; WEIGHTS of LPIPS (default: as "
        "python -m train.lpips_weights wrote them)",
    )
    group = parser.add_argument_group("output and errors")
    group.add_argument(
        "--worst", type=Path, metavar="DIR", help="folder for images of the ten frames with the smallest gain"
    )
    group.add_argument("--json", type=Path, metavar="F", help="result file to write (see schema.json)")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    has_clip = options.blurred is not None and options.sharp is not None
    has_pairs = options.pairs is not None
    if has_clip == has_pairs or (has_pairs and (options.blurred or options.sharp)):
        parser.error("give --blurred and --sharp, or --pairs")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.quality` and return its exit code."""
    options = parse(arguments)

    def command(_: object) -> int:
        require_writable(options.json)
        machine = describe_machine()
        restorer_options = RestorerOptions(
            engines=options.engine,
            restored=options.restored,
            classical=options.classical,
            tile=options.tile,
            overlap_px=options.overlap,
            threads=options.threads,
        )
        perceptual = None if options.perceptual is None else load_perceptual(options.perceptual)
        with ExitStack() as stack:
            restorers = open_restorers(restorer_options, stack)
            if options.pairs:
                samples = read_pairs(options.pairs, restored=options.restored)
            else:
                samples = read_clips(blurred=options.blurred, sharp=options.sharp, restored=options.restored)
            results = measure(samples, restorers, is_clip=options.pairs is None, perceptual=perceptual)
        results = {"source": "pairs" if options.pairs else "clips", **results}
        print(format_tables(results))
        if options.worst:
            write_worst(restorers, options.worst)
        if options.json:
            text = format_command("benchmarks.quality", arguments)
            write_results(options.json, kind="quality", results=results, command=text, machine=machine)
        return 0

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
