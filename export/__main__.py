"""`python -m export RUN --out DIR`: a trained generator becomes proven engines."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import re
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from calib_data import CALIBRATION, HELD_OUT
from export.plan.builder import PlanConfig, add_options, config_of, machine
from export.step_cache import Steps, digest, folder_digest
from runtime.engines.cuda import probe
from runtime.engines.nvidia import import_tensorrt
from runtime.errors import DeblurError, EngineError, InputError, OutputError, UsageError
from runtime.files import unwritable
from runtime.sidecar import Flavour
from runtime.spec import Precision

WEIGHTS = "generator.safetensors"
ROOT = Path(__file__).parent.parent
REPORT = "report.json"
STEPS = ".steps"
TIMING_CACHE = ".timing.cache"
WORSE_DB = 0.005
"""A new model may be this much worse than the one it replaces: rounding."""
_PRECISIONS = tuple(name for name in get_args(Precision) if name != "unknown")
_PACKAGES = ("torch", "onnx", "onnxruntime", "numpy")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export", description=__doc__)
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="RUN", help="folder that python -m train wrote")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for engines and report")
    add("--name", default="deblur", help="what the files are called: NAME_fp32.onnx and so on (default: deblur)")
    add("--precision", default=",".join(_PRECISIONS), metavar="P,...", help="of fp32,fp16,int8,int8_cpu (default: all)")
    add("--calib", type=Path, default=CALIBRATION, metavar="DIR|VIDEO", help="frames to calibrate with")
    methods = ("auto", "minmax", "entropy", "percentile")
    add("--calib-method", choices=methods, default="auto", help="auto tries all and keeps the best (default)")
    add("--pairs", type=Path, default=HELD_OUT, metavar="DIR", help="blur/ and sharp/ to measure on")
    add("--budget-db", type=float, default=0.30, metavar="DB", help="what INT8 may lose (default: 0.30)")
    add("--fp16-budget-db", type=float, default=0.10, metavar="DB", help="what FP16 may lose (default: 0.10)")
    add("--force", action="store_true", help="keep engines beyond their budget, and models worse than before")
    add("--target", choices=get_args(Flavour), help="build plans as well, with TensorRT or TensorRT-RTX")
    add_options(parser)
    return parser.parse_args(arguments)


def inputs_digest(options: argparse.Namespace) -> str:
    """Of everything that the export depends on: weights, frames, settings, versions, and our own code."""
    weights = weights_path(options.checkpoint)
    made = [weights.read_bytes(), weights.with_name("config.json").read_bytes()]
    pictures = [folder_digest(path) for path in (options.calib, options.pairs)]
    asked = (
        options.name,
        options.precision,
        options.calib_method,
        options.budget_db,
        options.fp16_budget_db,
        options.force,
    )
    plans = (plan_config(options), machine(options.target)) if options.target else ()
    return digest(*made, *pictures, repr(asked), repr(plans), tools_digest())


def weights_path(checkpoint: Path) -> Path:
    """As in `train.checkpoint`, which needs torch."""
    return checkpoint if checkpoint.suffix == ".safetensors" else checkpoint / WEIGHTS


def tools_digest() -> str:
    """Of our own code and the packages that engines are made with."""
    code = [folder_digest(ROOT / name) for name in ("export", "train/models", "runtime/engines")]
    code += [folder_digest(ROOT / "runtime" / f"{name}.py") for name in ("metrics", "sidecar", "spec")]
    return digest(*code, *(version(name) for name in _PACKAGES))


def unchanged(out: Path, inputs: str) -> bool:
    """Whether the folder holds what these inputs gave before, every file whole."""
    before = read_report(out)
    if before.get("inputs_sha256") != inputs:
        return False
    files = [(out / name, sha256) for name, sha256 in before["files"].items()]
    return all(path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256 for path, sha256 in files)


def read_report(out: Path) -> dict[str, Any]:
    """`report.json` of an earlier export; empty if there is none that can be read."""
    try:
        report = json.loads((out / REPORT).read_text())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def export(options: argparse.Namespace) -> str:
    """Make, prove and publish; returns the report for people. Nothing is published if a check fails."""
    # Torch takes seconds to import, which an export that has nothing to do need not pay.
    from export.chain import Chain, ExportConfig  # noqa: PLC0415
    from export.report import PARETO, draw, facts, markdown  # noqa: PLC0415

    before = read_report(options.out)
    config = ExportConfig(
        name=options.name,
        precisions=tuple(options.precision.split(",")),
        calibration=options.calib,
        calibration_method=options.calib_method,
        pairs=options.pairs,
        int8_budget_db=options.budget_db,
        fp16_budget_db=options.fp16_budget_db,
        force=options.force,
        plan=plan_config(options),
        timing_cache=options.out / TIMING_CACHE,
    )
    steps = Steps(options.out / STEPS, base=tools_digest())
    chain = Chain(options.checkpoint, config, steps)
    inputs = inputs_digest(options)
    result = chain.run()
    files = result.files()
    report = facts(result, inputs_sha256=inputs, pairs_sha256=chain.pairs_sha256)
    refuse_worse(report, before, options)
    steps.sweep()
    text = markdown(report, cpu=platform.processor() or platform.machine())
    with tempfile.TemporaryDirectory(dir=options.out, prefix=".unfinished-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        draw(report, folder / PARETO)
        (folder / "report.md").write_text(text)
        (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")
        for file in (*files, PARETO, "report.md", REPORT):  # all are written: from here on only names change
            (folder / file).replace(options.out / file)
    for file in before.get("files", {}).keys() - files.keys():
        (options.out / file).unlink(missing_ok=True)
    return text


def refuse_worse(report: dict[str, Any], before: dict[str, Any], options: argparse.Namespace) -> None:
    """Raise EngineError if the engines there now give more on the same pictures than the new ones."""
    if options.force or before.get("pairs_sha256") != report["pairs_sha256"]:
        return
    for name in report["engines"].keys() & before["engines"].keys():
        old, new = (each["engines"][name]["spec"]["psnr_db"] for each in (before, report))
        if new < old - WORSE_DB:
            raise EngineError(
                f"the new {name} engine is worse than the one it would replace ({new:.3f} dB, was {old:.3f})",
                options.out,
                hint="keep the old ones, give another --out, or add --force",
            )


def plan_config(options: argparse.Namespace) -> PlanConfig | None:
    """Raises UsageError for options of plans that do not go together."""
    return config_of(options, options.target) if options.target else None


def check_options(options: argparse.Namespace) -> None:
    """Raise UsageError or InputError for what can be known before anything is computed."""
    if options.target:
        plan_config(options)
        import_tensorrt(options.target)
        if options.target == "tensorrt":
            probe()
    unknown = set(options.precision.split(",")) - set(_PRECISIONS)
    if unknown:
        raise UsageError(f"no such precision: {', '.join(sorted(unknown))}", hint=f"use {', '.join(_PRECISIONS)}")
    if not re.fullmatch(r"[\w-]+", options.name):
        raise UsageError(
            f"a name is made of letters, digits, _ and -, got {options.name!r}", hint="give another --name"
        )
    for name in ("calib", "pairs"):
        if not getattr(options, name).exists():
            raise InputError(f"no such --{name}", getattr(options, name), hint="check the path")


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        check_options(options)
        if weights_path(options.checkpoint).exists() and unchanged(options.out, inputs_digest(options)):
            print(f"nothing has changed: {options.out}")
            return 0
        options.out.mkdir(parents=True, exist_ok=True)
        print(export(options))
    except OSError as error:
        print(f"error: {unwritable(options.out, error)}", file=sys.stderr)
        return OutputError.exit_code
    except DeblurError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ValueError as error:  # train's own: the checkpoint cannot be used
        print(f"error: {error}", file=sys.stderr)
        return EngineError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
