"""`python -m export.plan X.onnx --out X.plan`: build a TensorRT or TensorRT-RTX plan from an ONNX engine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from export.plan.builder import build_plan
from export.plan.calibrator import Algorithm
from export.plan.config import PlanConfig
from export.plan.layer_report import format_summary
from export.plan.options import add_plan_options, read_plan_config
from runtime.cli import run_cli
from runtime.engines.onnx import inspect
from runtime.errors import UsageError
from runtime.files import output_error, partial_name
from runtime.parser import CommandParser
from runtime.sidecar import Sidecar, sidecar_path
from runtime.sources import open_source


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """Files and settings of one plan."""

    onnx: Path
    out: Path
    config: PlanConfig
    calibration: Path | None = None
    """Folder of images or video, for `config.calibrator`."""
    timing_cache: Path | None = None


def build(options: BuildOptions) -> Sidecar:
    """Build a plan, write it with its sidecar, and return the sidecar; raises DeblurError."""
    spec = inspect(options.onnx)  # this also checks that the file is complete
    frames = (frame.bgr for frame in open_source(str(options.calibration))) if options.calibration else ()
    try:
        plan, sidecar = build_plan(
            options.onnx.read_bytes(),
            spec,
            options.config,
            name=options.onnx.name,
            timing_cache=options.timing_cache,
            frames=frames,
        )
        options.out.parent.mkdir(parents=True, exist_ok=True)
        # A kill between the two renames leaves a plan that does not match its sidecar, which the runtime refuses.
        contents = {options.out: plan, sidecar_path(options.out): sidecar.to_json().encode()}
        for path, content in contents.items():
            partial_name(path).write_bytes(content)
        for path in contents:
            partial_name(path).replace(path)
    except OSError as error:  # from reading the timing cache, or from writing
        raise output_error(options.out, error) from error
    return sidecar


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandParser("export.plan", description=__doc__)
    files = parser.add_argument_group("input and output").add_argument
    files("onnx", type=Path, help="ONNX engine that python -m export wrote")
    files("--out", type=Path, required=True, metavar="X.plan", help="plan file; its sidecar is X.plan.json")
    files("--timing-cache", type=Path, metavar="FILE", help="file for TensorRT's measurements, reused by later builds")
    add_plan_options(parser, default_target="tensorrt")
    add = parser.add_argument_group("calibration, TensorRT up to 10").add_argument
    add("--calibrator", choices=get_args(Algorithm), help="algorithm that quantises the engine while building")
    add("--calib", type=Path, metavar="DIR|VIDEO", help="calibration frames, a folder of images or a video")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def read_options(options: argparse.Namespace) -> BuildOptions:
    """Return the checked options; raises UsageError for options that contradict each other."""
    if bool(options.calibrator) != bool(options.calib):
        raise UsageError("--calibrator and --calib belong together", hint="give both or none")
    if options.out.suffix != ".plan":
        raise UsageError("a plan is called .plan", options.out, hint=f"use --out {options.out.stem}.plan")
    return BuildOptions(
        onnx=options.onnx,
        out=options.out,
        config=read_plan_config(options, options.calibrator),
        calibration=options.calib,
        timing_cache=options.timing_cache,
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    namespace = build_parser().parse_args(arguments)

    def run(_: object) -> int:
        options = read_options(namespace)
        print(f"{options.out}: {format_summary(build(options))}")
        return 0

    return run_cli(run, debug=namespace.debug)


if __name__ == "__main__":
    sys.exit(main())
