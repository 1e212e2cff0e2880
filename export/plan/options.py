"""Command-line options of plans, shared by `python -m export.plan` and `python -m export --target`."""

from __future__ import annotations

import argparse
from typing import get_args

from export.plan.calibrator import Algorithm
from export.plan.config import PlanConfig
from runtime.arguments import parse_size, whole_number_in
from runtime.sidecar import Flavour


def add_plan_options(parser: argparse.ArgumentParser, *, default_target: Flavour | None) -> None:
    """Add the option group for plans to a parser; without a default target no plans are built unless one is given."""
    add = parser.add_argument_group("plans").add_argument
    add(
        "--target",
        choices=get_args(Flavour),
        default=default_target,
        help=f"builder of the plan (default: {default_target or 'no plans'})",
    )
    add("--size", type=parse_size, metavar="WxH", help="the only frame size of the plan, which makes it fastest")
    add(
        "--min-size",
        type=parse_size,
        default=PlanConfig.min_size,
        metavar="WxH",
        help="smallest frame size of the plan (default: 64x64)",
    )
    add(
        "--opt-size",
        type=parse_size,
        default=PlanConfig.opt_size,
        metavar="WxH",
        help="frame size that the plan is optimised for (default: 1280x720)",
    )
    add(
        "--max-size",
        type=parse_size,
        default=PlanConfig.max_size,
        metavar="WxH",
        help="largest frame size of the plan (default: 1920x1088)",
    )
    add(
        "--batch",
        type=whole_number_in(1, 1024),
        default=1,
        metavar="N",
        help="largest number of frames per call (default: 1)",
    )
    add(
        "--workspace-mib",
        type=whole_number_in(1, 1 << 20),
        metavar="N",
        help="scratch memory for the builder in MiB (default: no limit)",
    )
    add(
        "--dla",
        type=whole_number_in(0, 7),
        metavar="CORE",
        help="deep-learning accelerator of a Jetson; the GPU runs what it cannot",
    )
    add(
        "--compute-capability",
        default="",
        metavar="C,...",
        help="GPUs that a tensorrt-rtx plan is built for, such as 8.9,12.0 (default: all known ones from 8.0 on)",
    )


def read_plan_config(options: argparse.Namespace, calibrator: Algorithm | None = None) -> PlanConfig:
    """Return the plan settings from parsed options; raises UsageError for options that contradict each other."""
    sizes = (options.size,) * 3 if options.size else (options.min_size, options.opt_size, options.max_size)
    return PlanConfig(
        flavour=options.target,
        min_size=sizes[0],
        opt_size=sizes[1],
        max_size=sizes[2],
        batch=options.batch,
        workspace_mib=options.workspace_mib,
        dla_core=options.dla,
        compute_capabilities=tuple(item for item in options.compute_capability.split(",") if item),
        calibrator=calibrator,
    )
