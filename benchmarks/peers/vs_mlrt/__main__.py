"""`python -m benchmarks.peers.vs_mlrt`: compare file jobs of the toolkit with vs-mlrt in VapourSynth.

Both restore the same clip with the same network and encode it with x264 and the same settings: the toolkit with its
bundled engines, vs-mlrt with the float export of the network, whose result `ffmpeg` encodes. The jobs run in
alternating rounds; what starting and ending costs is measured with the first frames of the clip and subtracted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.assets import DEMO_BLURRED, DEMO_SHARP
from benchmarks.harness.processes import JobError, run_job
from benchmarks.harness.results import format_command, require_writable, write_results
from benchmarks.harness.system_info import count_cores, describe_machine
from benchmarks.harness.transcode import HEAD_FRAMES, find_ffmpeg, read_frame_rate, write_head
from benchmarks.peers.vs_mlrt.jobs import describe_vapoursynth, list_peer_jobs, list_toolkit_jobs
from benchmarks.peers.vs_mlrt.measure import Clip, Outcome, check_jobs, count_frames, time_jobs
from benchmarks.peers.vs_mlrt.results import describe_results
from benchmarks.peers.vs_mlrt.table import format_tables
from runtime.arguments import whole_number_in
from runtime.cli import run_cli, say
from runtime.engines import BUNDLED
from runtime.errors import InputError
from runtime.parser import CommandParser

PYTHON = ".venv-vapoursynth/bin/python"
NETWORKS = ("edge-s", "edge-m", "edge-l")
MIN_FRAMES = 4 * HEAD_FRAMES


def measure(
    networks: Sequence[str], source: Path, sharp: Path | None, *, python: str, rounds: int, versions: dict[str, str]
) -> dict[str, Any]:
    """Check and time all jobs of the networks; return `file_jobs` of schema.json.

    `python`: has the packages in `versions`. Raises InputError if the clip cannot be read or is too short.
    """
    from benchmarks.peers.vs_mlrt.float_model import write_float_model  # noqa: PLC0415 - needs torch

    with tempfile.TemporaryDirectory(prefix="deblur-") as name:
        folder = Path(name)
        clip = prepare_clip(source, sharp, folder)
        frame_rate = read_frame_rate(clip.blurred)
        outcomes: list[Outcome] = []
        for network in networks:
            model = folder / f"{network}.onnx"
            write_float_model(BUNDLED.with_name(network), model)
            peers = list_peer_jobs(
                network, model, python=python, plugins=list(versions), streams=count_cores(), frame_rate=frame_rate
            )
            outcomes += check_jobs([*list_toolkit_jobs(network), *peers], clip, folder)
        time_jobs(outcomes, clip, folder, rounds=rounds)
        _, size = count_frames(clip.blurred)
    return describe_results(outcomes, clip, size=size, rounds=rounds, versions=versions, is_demo=source == DEMO_BLURRED)


def prepare_clip(source: Path, sharp: Path | None, folder: Path) -> Clip:
    """Copy a clip without sound, and encode its head."""
    blurred, head = folder / f"clip{source.suffix}", folder / "head.mp4"
    try:
        run_job(
            [[find_ffmpeg(), "-nostdin", "-v", "error", "-i", str(source), "-map", "0:v:0", "-c", "copy", str(blurred)]]
        )
        write_head(blurred, head, frame_rate=read_frame_rate(blurred))
        frames, size = count_frames(blurred)
    except JobError as error:
        raise InputError(f"not a clip that can be compared ({error})", source, hint="give a video file") from error
    if frames < MIN_FRAMES:
        raise InputError(f"{frames} frames are too few", source, hint=f"give a clip of at least {MIN_FRAMES}")
    if any(side % 2 for side in size):
        raise InputError("frames of odd width or height", source, hint="give a clip of even width and height")
    return Clip(blurred=blurred, head=head, sharp=sharp, frames=frames)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m benchmarks.peers.vs_mlrt`."""
    parser = CommandParser("benchmarks.peers.vs_mlrt", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--python",
        default=PYTHON,
        metavar="EXE",
        help="Python with vapoursynth, vapoursynth-bestsource, vapoursynth-mlrt-ov and vapoursynth-mlrt-ort "
        f"(default: {PYTHON})",
    )
    add(
        "--network",
        action="append",
        choices=NETWORKS,
        help="bundled network; repeat the option for several (default: edge-s and edge-l)",
    )
    add("--clip", type=Path, metavar="FILE", help="blurred video file, 8-bit 4:2:0 (default: the demo clip)")
    add(
        "--sharp",
        type=Path,
        metavar="FILE",
        help="video file with its ground truth, for the PSNR of the outputs (default: that of the demo clip, or none)",
    )
    add("--rounds", type=whole_number_in(1, 1000), default=5, metavar="N", help="number of rounds (default: 5)")
    add("--json", type=Path, metavar="F", help="result file to write (see schema.json)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.peers.vs_mlrt` and return its exit code.

    Where VapourSynth or FFmpeg is not installed, one line says so and the code is 0.
    """
    options = build_parser().parse_args(arguments)

    def command(_: object) -> int:
        require_writable(options.json)
        machine = describe_machine()
        source = options.clip or DEMO_BLURRED
        for path in (source, options.sharp):
            if path and not path.is_file():
                raise InputError("no such file", path, hint="give a video file")
        try:
            find_ffmpeg()
            versions = describe_vapoursynth(options.python)
        except JobError as error:
            say(f"skipped: {error}; see docs/benchmarks.md")
            return 0
        sharp = options.sharp or (DEMO_SHARP if source == DEMO_BLURRED else None)
        networks = options.network or ["edge-s", "edge-l"]
        results = measure(networks, source, sharp, python=options.python, rounds=options.rounds, versions=versions)
        print(format_tables(results))
        if options.json:
            text = format_command("benchmarks.peers.vs_mlrt", arguments)
            write_results(options.json, kind="file_jobs", results=results, command=text, machine=machine)
        return 0

    return run_cli(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
