"""`python -m runtime.video`: a blurred stream in, a sharp one out."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from fractions import Fraction
from pathlib import Path

from runtime.arguments import parse_size
from runtime.blur_score import SHARP_BLUR_SCORE
from runtime.cli import run_cli
from runtime.engines import BUNDLED, BUNDLED_NAMES, MODES, PROVIDERS, engine_path
from runtime.engines.tiled import OVERLAP_PX
from runtime.monitor import Address
from runtime.session import run
from runtime.sinks import NULL
from runtime.sources import RawFrames

_EPILOG = (
    "exit codes: 0 done, 2 usage, 3 source, 4 engine, 5 source lost, 6 output, 7 memory, 8 numbers, 130/143 interrupted"
)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked as far as it goes without opening anything."""
    parser = argparse.ArgumentParser(prog="python -m runtime.video", description=__doc__, epilog=_EPILOG)
    add = parser.add_argument
    add(
        "--engine",
        type=engine_path,
        default=BUNDLED,
        metavar="E",
        help=f"{', '.join(BUNDLED_NAMES)} (default), an engine file, or a folder of which the fastest is taken",
    )
    add(
        "--source",
        action="append",
        metavar="S",
        help="video, picture, folder, quoted pattern, - (standard input), address, or camera (default: 0); "
        "again for each that the engine is to serve in turn",
    )
    add(
        "--out",
        action="append",
        metavar="O",
        help=f"video file, picture, folder of pictures, - (standard output), {NULL}, or an rtsp:// or rtmp:// address "
        "to publish to; one for each --source, or several of one",
    )
    add("--raw", type=_raw, metavar="WxH@FPS", help="standard input gives uint8 BGR frames of this size and rate")
    add("--segment-s", type=float, default=0.0, metavar="S", help="record into files of so many seconds each")
    add("--pipe", choices=("y4m", "raw"), default="y4m", help="what --out - writes (raw: uint8 BGR)")
    add("--side-by-side", action="store_true", help="put the blurred frame to the left of the sharp one")
    add("--show", action="store_true", help="show the frames in a window; the default without --out")
    add("--stats", type=Path, metavar="FILE", help="write frame counts and latencies as JSON")
    add(
        "--serve",
        type=Address.parse,
        metavar="[HOST:]PORT",
        help="a page with the live picture and figures, /metrics and /healthz (default host: this machine alone)",
    )
    add("--provider", choices=PROVIDERS, default="auto", help="what runs an .onnx engine (default: the faster)")
    add("--mode", choices=MODES, help="one frame at a time (default: live sources), or several (default: files)")
    add("--rebuild", action="store_true", help="build a plan that does not fit this machine again, from its ONNX file")
    add(
        "--tile",
        type=parse_size,
        metavar="WxH",
        help="tile size (default: tiles only where a frame needs them)",
    )
    add("--overlap", type=int, default=OVERLAP_PX, metavar="PX", help=f"of tiles, blended (default: {OVERLAP_PX})")
    add("--watch-engine", action="store_true", help="change to a new engine when the file is replaced")
    add("--camera-size", type=parse_size, metavar="WxH", help="asked of a camera")
    add("--camera-fps", type=float, metavar="F", help="asked of a camera")
    add("--transport", choices=("tcp", "udp"), default="tcp", help="of RTSP (default: tcp)")
    add("--timeout-s", type=float, default=10.0, metavar="S", help="open a live source again after so long a silence")
    add("--open-s", type=float, default=10.0, metavar="S", help="and wait so long for its first frame (default: 10)")
    add("--frozen-s", type=float, default=60.0, metavar="S", help="or with one picture alone for so long (0: never)")
    add(
        "--max-reconnects",
        type=int,
        metavar="N",
        help="end with 5 after so many failed tries in a row (default: never)",
    )
    add("--max-latency-ms", type=float, metavar="MS", help="drop frames of a live source that waited longer")
    add("--skip-sharp", type=_blur, default=0.0, metavar="auto|off|BLUR", help="pass on sharp frames (default: off)")
    add("--guard", choices=("on", "off"), default="on", help="pass on frames whose result is impossible (default: on)")
    add("--strict", action="store_true", help="end with 8 at such a frame instead")
    add("--threads", type=_count, default=0, metavar="N", help="CPU threads of the engine (default: every core)")
    add("--resume", action="store_true", help="finish the video that an earlier run with the same options left")
    add("-y", dest="overwrite", action="store_true", default=None, help="replace an existing output")
    add("-n", dest="overwrite", action="store_false", help="never replace an existing output")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = parse(arguments)
    return run_cli(lambda interruption: run(options, interruption), debug=options.debug)


def _blur(text: str) -> float:
    value = {"auto": SHARP_BLUR_SCORE, "off": 0.0}.get(text)
    value = float(text) if value is None else value
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be auto, off, or a blur from 0 to 1, got {text}")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _raw(text: str) -> RawFrames:
    frame, _, rate = text.partition("@")
    try:
        fps = Fraction(rate)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if fps <= 0:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT@FPS such as 1280x720@30, got {text!r}")
    return RawFrames(parse_size(frame), fps)


if __name__ == "__main__":
    code = main()
    if any(thread is not threading.current_thread() for thread in threading.enumerate()):
        # One is stuck in a library that blocks for ever; the interpreter would crash in taking itself down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
