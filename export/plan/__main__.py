"""`python -m export.plan X.onnx --out X.plan`: an engine file becomes a TensorRT or TensorRT-RTX plan."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from export.plan.builder import add_options, config_of, plan_from_onnx, summary
from export.plan.calibrator import Algorithm
from runtime.engines.onnx import inspect
from runtime.errors import DeblurError, OutputError, UsageError
from runtime.files import partial_name, unwritable
from runtime.sidecar import Flavour, Sidecar, sidecar_path
from runtime.sources import open_source


def build(options: argparse.Namespace) -> Sidecar:
    """What the command does; raises DeblurError."""
    if options.out.suffix != ".plan":
        raise UsageError("a plan is called .plan", options.out, hint=f"use --out {options.out.stem}.plan")
    config = config_of(options, options.target, options.calibrator)
    spec = inspect(options.onnx)  # which also proves that the file is whole
    frames = (frame.pixels for frame in open_source(str(options.calib))) if config.calibrator else ()
    plan, sidecar = plan_from_onnx(
        options.onnx.read_bytes(),
        spec,
        config,
        name=options.onnx.name,
        timing_cache=options.timing_cache,
        frames=frames,
    )
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        # A kill between the two renames leaves a plan that its sidecar does not match: refused, never run.
        both = {options.out: plan, sidecar_path(options.out): sidecar.to_json().encode()}
        for path, content in both.items():
            partial_name(path).write_bytes(content)
        for path in both:
            partial_name(path).replace(path)
    except OSError as error:
        raise unwritable(options.out, error) from error
    return sidecar


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.plan", description=__doc__)
    add = parser.add_argument
    add("onnx", type=Path, help="an engine that python -m export wrote")
    add("--out", type=Path, required=True, metavar="X.plan", help="the plan; X.plan.json is written beside it")
    add("--target", choices=get_args(Flavour), default="tensorrt", help="which builder (default: tensorrt)")
    add("--timing-cache", type=Path, metavar="FILE", help="what TensorRT measured, kept for the next build")
    add("--calibrator", choices=get_args(Algorithm), help="TensorRT up to 10: quantise while building")
    add("--calib", type=Path, metavar="DIR|VIDEO", help="frames for --calibrator")
    add_options(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if bool(options.calibrator) != bool(options.calib):
        print("error: --calibrator and --calib belong together; give both or none", file=sys.stderr)
        return UsageError.exit_code
    try:
        print(f"{options.out}: {summary(build(options))}")
    except DeblurError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # the timing cache
        print(f"error: {unwritable(options.out, error)}", file=sys.stderr)
        return OutputError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
