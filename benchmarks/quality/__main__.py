"""`python -m benchmarks.quality`: what engines give against the truth, beside the blurred input.

PSNR, SSIM and flicker; by level of blur; the frames that gain least, as pictures. Clips or folders of pairs; engines
run on the spot, as the command line runs them, or what they have restored before.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.harness.engines import facts, labels, numbered, opened
from benchmarks.harness.results import command_line, prepare, write_results
from benchmarks.harness.scenarios import PAUSE_S
from benchmarks.harness.statistics import summary
from benchmarks.harness.system_info import facts as machine_facts
from benchmarks.quality.classical import METHODS, ClassicalEngine
from benchmarks.quality.ground_truth import Known, from_clips, from_pairs
from benchmarks.quality.scores import Tally, Worst, told
from benchmarks.quality.table import tables
from runtime.arguments import parse_size
from runtime.cli import report_error
from runtime.engines import BUNDLED, Engine
from runtime.engines.tiled import OVERLAP_PX, TiledEngine
from runtime.errors import DeblurError
from runtime.files import unwritable
from runtime.frame import Pixels


@dataclass
class Restorer:
    """Something that is compared with the truth: an engine, or a clip that one has made."""

    name: str
    engine: Engine | None = None
    """None: its frames come with the blurred ones."""
    facts: dict[str, Any] | None = None
    """Of an engine in a file: which one it is."""
    tally: Tally = field(default_factory=Tally)
    worst: Worst = field(default_factory=Worst)
    times_ms: list[float] = field(default_factory=list)


def measure(frames: Iterable[Known], restorers: Sequence[Restorer], *, in_order: bool) -> dict[str, Any]:
    """Compare restorers with the truth; `quality` in schema.json, without what the command line says.

    `frames`: their `restored` pictures belong to the restorers without an engine, in order. `in_order`: they are a
    clip's, so that flicker is known. Raises what engines and sources raise.
    """
    blurred = Tally()
    running = sum(each.engine is not None for each in restorers)
    for frame in frames:
        before = blurred.add(frame.name, frame.blurred, frame.sharp, follows=in_order)
        made = iter(frame.restored)
        for each in restorers:
            picture = next(made) if each.engine is None else _run(each, frame.blurred, alone=running == 1)
            score = each.tally.add(frame.name, picture, frame.sharp, follows=in_order)
            each.worst.add(frame.name, score.psnr_db - before.psnr_db, (frame.blurred, picture, frame.sharp))
    return {
        "frames": len(blurred.scores),
        "blurred": told(blurred, blurred),
        "restored": [_told(each, blurred) for each in restorers],
    }


def _run(restorer: Restorer, blurred: Pixels, *, alone: bool) -> Pixels:
    assert restorer.engine is not None
    if not alone:
        time.sleep(PAUSE_S)  # threads of the engine before spin for a while
    began = time.perf_counter()
    picture: Pixels = restorer.engine.infer(blurred[np.newaxis])[0]
    restorer.times_ms.append(1e3 * (time.perf_counter() - began))
    return picture


def _told(restorer: Restorer, blurred: Tally) -> dict[str, Any]:
    scores = told(restorer.tally, blurred)
    host = asdict(summary(restorer.times_ms)) if restorer.times_ms else None
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
    """Blurred, restored and sharp beside one another, one PNG a frame in a folder for each restorer.

    Raises OutputError if they cannot be written.
    """
    for each in restorers:
        place = folder / each.name.replace("/", "_")
        try:
            place.mkdir(parents=True, exist_ok=True)
            for rank, (name, gain_db, pictures) in enumerate(each.worst.ranked(), start=1):
                packed = cv2.imencode(".png", pictures)[1]
                (place / f"{rank:02}_{name}_{gain_db:+.2f}dB.png").write_bytes(packed.tobytes())
        except OSError as error:
            raise unwritable(place, error) from error


def restorers_of(options: argparse.Namespace, last: ExitStack) -> list[Restorer]:
    """Those that the command line names, in its order of kinds; `last` closes the engines."""
    names = list(options.engine)
    if not (names or options.restored or options.classical):
        names = [str(BUNDLED)]
    found = [Restorer(Path(name).name) for name in options.restored]
    for name, label in zip(names, labels(names), strict=True):
        engine = opened(name, threads=options.threads)
        last.callback(engine.close)
        tiled = TiledEngine(engine, tile=options.tile, overlap_px=options.overlap)
        which = {key: value for key, value in facts(name, engine).items() if key != "slots"}
        found.append(Restorer(label, tiled, which | {"backend": tiled.backend}))
    if options.classical:
        found += [Restorer(name, ClassicalEngine(name, method)) for name, method in METHODS.items()]
    for each, told_apart in zip(found, numbered([each.name for each in found]), strict=True):
        each.name = told_apart  # of its row, and of its folder
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--blurred", metavar="CLIP", help="video or folder of its frames")
    add("--sharp", metavar="CLIP", help="its truth")
    add("--pairs", type=Path, metavar="DIR", help="instead of a clip: a folder with blur/ and sharp/ in it")
    add("--restored", action="append", default=[], metavar="CLIP", help="made before; again for more")
    add("--engine", action="append", default=[], metavar="E[@PROVIDER]", help="run now; again for more")
    add("--classical", action="store_true", help="also Wiener, Richardson-Lucy and unsharp masking")
    add("--tile", type=parse_size, metavar="WxH", help="of engines, as in python -m runtime.video")
    add("--overlap", type=int, default=OVERLAP_PX, metavar="PX", help=f"of tiles (default: {OVERLAP_PX})")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads of engines (default: every core)")
    add("--worst", type=Path, metavar="DIR", help="write the ten frames that gain least")
    add("--json", type=Path, metavar="F", help="write a result file (schema.json)")
    options = parser.parse_args(arguments)
    clip = options.blurred is not None and options.sharp is not None
    if clip == (options.pairs is not None) or (options.pairs is not None and (options.blurred or options.sharp)):
        parser.error("give --blurred and --sharp, or --pairs")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        prepare(options.json)
        machine = machine_facts()
        with ExitStack() as last:
            restorers = restorers_of(options, last)
            if options.pairs:
                frames = from_pairs(options.pairs, restored=options.restored)
            else:
                frames = from_clips(blurred=options.blurred, sharp=options.sharp, restored=options.restored)
            results = measure(frames, restorers, in_order=options.pairs is None)
        results = {"source": "pairs" if options.pairs else "clips", **results}
        print(tables(results))
        if options.worst:
            write_worst(restorers, options.worst)
        if options.json:
            command = command_line("benchmarks.quality", arguments)
            write_results(options.json, kind="quality", results=results, command=command, machine=machine)
    except DeblurError as error:
        return report_error(error, debug=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
