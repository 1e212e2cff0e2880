"""`deblur-bench NAME` and `python -m benchmarks NAME`: start one of the benchmark commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

from runtime.parser import CommandParser, program_name


class Command(NamedTuple):
    """A benchmark command: the module that has its `main`, and one line of help."""

    module: str
    summary: str
    has_options: bool = True


COMMANDS: Mapping[str, Command] = {
    "latency": Command("benchmarks.latency.__main__", "cost of a frame in engines, compared with each other"),
    "quality": Command("benchmarks.quality.__main__", "PSNR, SSIM and flicker of restored frames"),
    "peers": Command("benchmarks.peers.__main__", "the toolkit compared with other ways to run the same network"),
    "vs-mlrt": Command(
        "benchmarks.peers.vs_mlrt.__main__", "file jobs of the toolkit compared with vs-mlrt in VapourSynth"
    ),
    "scaling": Command("benchmarks.scaling", "cost of a frame by its size, by threads, and by streams"),
    "report": Command("benchmarks.report", "result files as one page, in Markdown and HTML"),
    "gpu-check": Command("benchmarks.gpu_check.__main__", "verdict on an NVIDIA machine, as one page"),
    "demo-clip": Command("benchmarks.demo_clip", "render the demo clip and its ground truth"),
    "eye-crops": Command("benchmarks.eye_crops", "draw the crops of docs/gan.md"),
    "calibration-frames": Command("benchmarks.calib_frames", "write the frames in calib_data/", has_options=False),
    "classical": Command("benchmarks.classical", "search the settings of the classical methods"),
    "machine": Command("benchmarks.machine", "facts of this machine, as JSON", has_options=False),
}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `deblur-bench`, which knows only the name of the command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items()]
    parser = CommandParser(
        "benchmarks",
        description="Start one of the benchmark commands.",
        epilog="\n".join(["commands:", *lines, "", "`NAME --help` prints the options of a command."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-h] NAME ...",
    )
    parser.add_argument("name", choices=COMMANDS, metavar="NAME", help="command to start; its options come after it")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Start the command named by the first argument with the arguments after it, and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    name = build_parser().parse_args(words[:1]).name
    command = COMMANDS[name]
    program = f"{program_name('benchmarks')} {name}"
    if not command.has_options:
        CommandParser("", prog=program, description=command.summary).parse_args(words[1:])
    # The commands read sys.argv themselves; not all of them take a list of arguments.
    sys.argv = [program, *words[1:]]
    return import_module(command.module).main() or 0


if __name__ == "__main__":
    sys.exit(main())
