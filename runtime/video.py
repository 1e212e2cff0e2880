"""`python -m runtime.video`: restore a blurred video, image folder, camera or stream."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from fractions import Fraction
from pathlib import Path

from runtime.address import Address
from runtime.arguments import parse_size
from runtime.blur_score import SHARP_BLUR_SCORE
from runtime.cli import run_cli
from runtime.codec_options import add_decoder_option, add_encoder_options, parse_encoder
from runtime.engines import BUNDLED_HELP, BUNDLED_NAMES, MODES, PROVIDERS
from runtime.engines.tile_layout import OVERLAP_PX
from runtime.interrupt import Interruption
from runtime.models.__main__ import main as models_main
from runtime.options import RunOptions
from runtime.parser import CommandParser
from runtime.session import run
from runtime.sinks import NULL
from runtime.sources import LiveOptions, RawFrames, Watch

_MAX_FPS = 100_000
_EPILOG = (
    "exit codes: 0 done, 2 usage, 3 source, 4 engine, 5 source lost, 6 output, 7 memory, 8 numbers, 130/143 interrupted"
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m runtime.video`."""
    parser = CommandParser("runtime.video", description=__doc__, epilog=_EPILOG)
    _add_input_options(parser.add_argument_group("input"))
    _add_output_options(parser.add_argument_group("output"))
    add_encoder_options(parser)
    _add_engine_options(parser.add_argument_group("engine"))
    _add_live_options(parser.add_argument_group("live sources"))
    _add_safety_options(parser.add_argument_group("safety"))
    return parser


def _add_input_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-i",
        "--source",
        action="append",
        metavar="S",
        help="video file, image file, folder of images, quoted pattern, - (standard input), stream address, or camera "
        "(default: camera 0); repeat it for several sources that share the engine",
    )
    group.add_argument(
        "--raw",
        type=_parse_raw,
        metavar="WxH@FPS",
        help="size and rate of raw uint8 BGR frames on standard input (default: a video)",
    )
    add_decoder_option(group)
    group.add_argument(
        "--deinterlace",
        choices=("auto", "off"),
        default="auto",
        help="make frames of the fields of interlaced video with bwdif, or keep the fields (default: auto)",
    )


def _add_output_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "-o",
        "--out",
        action="append",
        metavar="O",
        help=f"video file, image file, folder of images (NAME/), - (standard output), {NULL} (write nothing), or an "
        "rtsp:// or rtmp:// address to publish to; one for each --source, or several for one source",
    )
    add("--segment-s", type=float, default=0.0, metavar="S", help="length in seconds of the files of a recording")
    add("--pipe", choices=("y4m", "raw"), default="y4m", help="format of --out - (default: y4m; raw: uint8 BGR)")
    add("--side-by-side", action="store_true", help="write the blurred frame to the left of the restored one")
    add("--show", action="store_true", help="show the frames in a window (default without --out)")
    add("--stats", type=Path, metavar="FILE", help="JSON file for frame counts and latencies")
    add(
        "--serve",
        type=Address.parse,
        metavar="[HOST:]PORT",
        help="address of a status page with the live frame, figures, /metrics and /healthz (default host: loopback)",
    )
    add(
        "--serve-token",
        metavar="T",
        help="token that the status page asks for, as @FILE or ${NAME} (default: none on loopback, else a new one)",
    )
    add("--serve-cert", type=Path, metavar="PEM", help="certificate of the status page (default: none, HTTP)")
    add("--serve-key", type=Path, metavar="PEM", help="key of the certificate (default: in the file of --serve-cert)")
    add("--resume", action="store_true", help="continue a video that an earlier run with the same options left")
    add("-y", dest="overwrite", action="store_true", default=None, help="replace existing outputs")
    add("-n", dest="overwrite", action="store_false", help="never replace existing outputs")


def _add_engine_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--engine",
        default=BUNDLED_NAMES[0],
        metavar="E",
        help=f"{BUNDLED_HELP}, name in `deblur models`, engine file, folder of engines (the fastest is used), or triton://HOST:PORT/MODEL",
    )
    add("--provider", choices=PROVIDERS, default="auto", help="library that runs an .onnx engine (default: the faster)")
    add("--mode", choices=MODES, help="one frame at a time (default: live sources) or several (default: files)")
    add("--threads", type=_parse_count, default=0, metavar="N", help="number of CPU threads (default: every core)")
    add(
        "--tile",
        type=parse_size,
        metavar="WxH",
        help="tile size in pixels (default: only where a frame needs tiles)",
    )
    add(
        "--overlap",
        type=int,
        default=OVERLAP_PX,
        metavar="PX",
        help=f"overlap of neighbouring tiles in pixels (default: {OVERLAP_PX})",
    )
    add("--rebuild", action="store_true", help="build a plan that does not fit this machine again from its ONNX file")
    add(
        "--pixels",
        choices=("auto", "bgr", "yuv420"),
        default="auto",
        help="form of the frames; yuv420 keeps the planes of 4:2:0 video, without a conversion to BGR and back "
        "(default: yuv420 where source and engine can)",
    )
    add("--watch-engine", action="store_true", help="replace the engine while running when its file is replaced")


def _add_live_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--camera-size", type=parse_size, metavar="WxH", help="frame size to request from a camera")
    add("--camera-fps", type=float, metavar="F", help="frame rate to request from a camera")
    add("--transport", choices=("tcp", "udp"), default="tcp", help="transport of RTSP (default: tcp)")
    add("--open-s", type=float, default=10.0, metavar="S", help="seconds to wait for the first frame (default: 10)")
    add(
        "--timeout-s",
        type=float,
        default=10.0,
        metavar="S",
        help="seconds without a frame before reconnecting (default: 10)",
    )
    add(
        "--frozen-s",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds of identical frames before reconnecting (default: 60; 0: never)",
    )
    add(
        "--max-reconnects",
        type=int,
        metavar="N",
        help="number of failed reconnections in a row before ending with code 5 (default: never)",
    )
    add(
        "--max-latency-ms",
        type=float,
        metavar="MS",
        help="age in milliseconds above which a waiting frame is dropped (default: 0, no limit)",
    )


def _add_safety_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--guard",
        choices=("on", "off"),
        default="on",
        help="write the blurred frame in place of an impossible result (default: on)",
    )
    add("--strict", action="store_true", help="end with code 8 at an impossible result")
    add(
        "--skip-sharp",
        type=_parse_blur_score,
        default=0.0,
        metavar="auto|off|SCORE",
        help="blur score from 0 to 1 below which a frame is written unchanged "
        f"(default: off; auto: {SHARP_BLUR_SCORE:g})",
    )
    add("--debug", action="store_true", help="print the traceback of an error")


def parse(arguments: list[str] | None = None) -> RunOptions:
    """Parse a command line; raises UsageError for options that do not fit, SystemExit for what argparse refuses."""
    values = build_parser().parse_args(arguments)
    return RunOptions(
        sources=tuple(values.source) if values.source else RunOptions.sources,
        outputs=tuple(values.out or ()),
        engine=values.engine,
        provider=values.provider,
        threads=values.threads,
        mode=values.mode,
        rebuild=values.rebuild,
        tile=values.tile,
        overlap_px=values.overlap,
        watch_engine=values.watch_engine,
        pixels=values.pixels,
        guard=values.guard == "on",
        strict=values.strict,
        skip_blur_score=values.skip_sharp,
        max_latency_ms=values.max_latency_ms,
        live=_parse_live(values),
        raw=values.raw,
        decoder=values.decoder,
        deinterlace=values.deinterlace,
        encoder=parse_encoder(values),
        segment_s=values.segment_s,
        pipe=values.pipe,
        side_by_side=values.side_by_side,
        resume=values.resume,
        overwrite=values.overwrite,
        show=values.show,
        serve=values.serve,
        serve_token=values.serve_token,
        serve_cert=values.serve_cert,
        serve_key=values.serve_key,
        stats=values.stats,
        debug=values.debug,
    )


def _parse_live(values: argparse.Namespace) -> LiveOptions:
    watch = Watch(
        timeout_s=values.timeout_s,
        open_s=values.open_s,
        frozen_s=values.frozen_s,
        max_reconnects=values.max_reconnects,
    )
    return LiveOptions(
        camera_size=values.camera_size, camera_fps=values.camera_fps, transport=values.transport, watch=watch
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""

    def command(interruption: Interruption) -> int:
        return run(parse(arguments), interruption)

    is_debug = "--debug" in (sys.argv[1:] if arguments is None else arguments)
    return run_cli(command, debug=is_debug)


def _parse_blur_score(text: str) -> float:
    names = {"auto": SHARP_BLUR_SCORE, "off": 0.0}
    score = names[text] if text in names else float(text)
    if not 0 <= score <= 1:
        raise argparse.ArgumentTypeError(f"must be auto, off, or a blur score from 0 to 1, got {text}")
    return score


def _parse_count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {count}")
    return count


def _parse_raw(text: str) -> RawFrames:
    size, _, rate = text.partition("@")
    try:
        fps = Fraction(rate)
    except (ValueError, ZeroDivisionError):
        fps = Fraction(0)
    if not 0 < fps <= _MAX_FPS:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT@FPS such as 1280x720@30, got {text!r}")
    return RawFrames(parse_size(size), fps)


def run_and_exit() -> None:
    """Run the command line and end the process; the `deblur` console script, with `deblur models` as its second use."""
    if sys.argv[1:2] == ["models"]:
        sys.exit(models_main(sys.argv[2:]))
    code = main()
    if any(thread is not threading.current_thread() for thread in threading.enumerate()):
        # A thread is stuck in a library that blocks for ever; the interpreter would crash while shutting down.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run_and_exit()
