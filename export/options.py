"""Options of `python -m export`."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from calib_data import CALIBRATION, HELD_OUT
from export.config import ExportConfig, Interface, Method
from export.foreign.options import add_foreign_options, read_foreign_options
from export.plan.options import add_plan_options, read_plan_config
from export.publish import is_foreign
from runtime.arguments import number_in
from runtime.engines.cuda import probe
from runtime.engines.nvidia import import_tensorrt
from runtime.errors import InputError, UsageError
from runtime.parser import CommandParser
from runtime.spec import PixelFormat, Precision
from train.fields import parse_value
from train.weights import PUBLISHED_NETWORKS

_DESCRIPTION = "`python -m export NETWORK --out DIR`: turn a trained network or an ONNX file into verified engines."
_TIMING_CACHE = ".timing.cache"
_Name = TypeVar("_Name", bound=str)
_INTERFACES: tuple[Interface, ...] = get_args(Interface)
_PIXELS: tuple[PixelFormat, ...] = get_args(PixelFormat)
_PRECISIONS: tuple[Precision, ...] = tuple(name for name in get_args(Precision) if name != "unknown")
_EPILOG = """\
steps of the chain, described in docs/export.md:
  export_to_onnx           PyTorch to float ONNX
  fuse_convolutions        fewer and cheaper convolutions, with the same result
  measure_grid             strength of a grid, for networks trained with a discriminator
  to_bgr_order             weights of RGB networks reordered for BGR frames
  to_yuv420                weights rewritten for the planes of 4:2:0 video
  convert_to_fp16          half precision
  calibrate_ranges         range of every tensor on the calibration frames
  choose_calibration_method
                           method that agrees best with the float network
  measure_layer_losses     loss of each layer alone, if all together exceed the budget
  choose_residual          residual of int8 in half precision if FP16's budget allows it
  quantize_within_budget   quantize_int8 with as many layers as the budget allows
  replace_depth_to_space   pixel shuffles as moves of whole rows, for int8_cpu
  add_pixel_interface      8-bit frames in and out
  measure_score            quality on the pairs and agreement with PyTorch
  build_plan               TensorRT or TensorRT-RTX plan, with --target
"""


@dataclass(frozen=True)
class ExportOptions:
    """Checkpoint, output folder and settings of one export."""

    checkpoint: Path
    out: Path
    overwrite: bool
    """Replace files in `out` that no export wrote."""
    config: ExportConfig


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandParser(
        "export",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    files = parser.add_argument_group("input and output").add_argument
    files(
        "checkpoint",
        type=Path,
        metavar="RUN|WEIGHTS|MODEL.onnx",
        help="folder that python -m train wrote, its state.pt, weights of a published network (.pth, .safetensors), or "
        "an ONNX file of another exporter",
    )
    files("--out", type=Path, required=True, metavar="DIR", help="folder for engines and report")
    files("-y", dest="overwrite", action="store_true", help="replace files in DIR that no export wrote")
    files("--name", default="deblur", help="name of the engines, as in NAME_fp32.onnx (default: deblur)")
    files("--licence", metavar="TEXT", help="licence of the weights, stored in the engines (default: not stated)")
    _add_network_options(parser)
    add_foreign_options(parser)
    _add_precision_options(parser)
    _add_measurement_options(parser)
    add_plan_options(parser, default_target=None)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _add_precision_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which engines are made, and how INT8 is calibrated."""
    add = parser.add_argument_group("precision and calibration").add_argument
    precisions = ",".join(_PRECISIONS)
    add("--precision", default=precisions, metavar="P,...", help=f"precisions to export (default: {precisions})")
    forms = ",".join(_PIXELS)
    add(
        "--pixels",
        default=forms,
        metavar="P,...",
        help=f"forms of frames to export engines for: BGR images, and planes of 4:2:0 video (default: {forms})",
    )
    add(
        "--interface",
        choices=_INTERFACES,
        help="further form of the engines for BGR frames, for other programs such as FFmpeg and vs-mlrt: float_nchw is "
        "float32[1,3,H,W] RGB in 0..1 (default: none)",
    )
    add(
        "--calib",
        type=Path,
        default=CALIBRATION,
        metavar="DIR|VIDEO",
        help="calibration frames, a folder of images or a video (default: calib_data/calibration)",
    )
    add(
        "--calib-method",
        choices=("auto", *get_args(Method)),
        default="auto",
        help="calibration method; auto tries all and uses the one that agrees best with the float network, or minmax "
        "for networks whose tensors take more than 2 GB (default: auto)",
    )


def _add_measurement_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the comparison with ground truth, which decides whether an engine is published."""
    add = parser.add_argument_group("measurement").add_argument
    add(
        "--pairs",
        type=Path,
        default=HELD_OUT,
        metavar="DIR",
        help="folder with blur/ and sharp/ to measure on (default: calib_data/held_out)",
    )
    add(
        "--budget-db",
        type=number_in(0, 100),
        default=0.30,
        metavar="DB",
        help="PSNR that INT8 may lose in dB (default: 0.30)",
    )
    add(
        "--fp16-budget-db",
        type=number_in(0, 100),
        default=0.10,
        metavar="DB",
        help="PSNR that FP16 may lose in dB (default: 0.10)",
    )
    add(
        "--force",
        action="store_true",
        help="publish engines that exceed their budget, or that are worse than the ones they replace",
    )


def _add_network_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which network weights are of."""
    add = parser.add_argument_group("network").add_argument
    add(
        "--network",
        choices=("auto", *PUBLISHED_NETWORKS),
        default="auto",
        help="network that WEIGHTS are of; auto recognises it by the names and shapes of the weights (default: auto)",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the network that its weights do not tell, such as pooling_px=384; repeat the option for more",
    )
    add(
        "--work-scale",
        type=int,
        choices=(1, 2),
        default=1,
        metavar="S",
        help="scale that the network works at: at 2 it restores the image reduced by two, and its residual is enlarged "
        "and added to the whole image; costs a quarter and reaches blur of twice the length (default: 1)",
    )


def _read_network_options(texts: list[str]) -> dict[str, Any]:
    """Return the values of `--option` by name; raises UsageError for a text without a value."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not (name.isidentifier() and equals):
            raise UsageError(f"--option {name}: no option with a value", hint="write it as pooling_px=384")
    return {name: parse_value(value) for name, _, value in pairs}


def _split_names(what: str, text: str, known: tuple[_Name, ...]) -> tuple[_Name, ...]:
    """Return the names of a list with commas, in the order of `known`; raises UsageError for an unknown one."""
    names = text.split(",")
    unknown = set(names) - set(known)
    if unknown:
        raise UsageError(f"unknown {what}: {', '.join(sorted(unknown))}", hint=f"use {', '.join(known)}")
    return tuple(name for name in known if name in names)


def read_options(namespace: argparse.Namespace) -> ExportOptions:
    """Return the checked options; raises UsageError, InputError or EngineError before anything is computed."""
    plan = read_plan_config(namespace) if namespace.target else None
    if plan:
        import_tensorrt(namespace.target)
        if namespace.target == "tensorrt":
            probe()
    precisions = _split_names("precision", namespace.precision, _PRECISIONS)
    pixels = _split_names("form of frames", namespace.pixels, _PIXELS)
    if plan and "yuv420" in pixels:
        plan.require_even_sizes("give an even --size, or --pixels bgr")
    if namespace.interface and "bgr" not in pixels:
        raise UsageError("--interface needs the engines for BGR frames", hint="add bgr to --pixels")
    if not re.fullmatch(r"[\w-]+", namespace.name):
        raise UsageError(
            f"a name consists of letters, digits, _ and -, got {namespace.name!r}", hint="give another --name"
        )
    for option, path in (("--calib", namespace.calib), ("--pairs", namespace.pairs)):
        if not path.exists():
            raise InputError(f"{option} does not exist", path, hint="check the path")
    config = ExportConfig(
        name=namespace.name,
        licence=namespace.licence,
        network=namespace.network,
        work_scale=namespace.work_scale,
        network_options=_read_network_options(namespace.option),
        foreign=read_foreign_options(namespace, is_foreign=is_foreign(namespace.checkpoint)),
        precisions=precisions,
        pixels=pixels,
        interfaces=(namespace.interface,) if namespace.interface else (),
        calibration=namespace.calib,
        calibration_method=namespace.calib_method,
        pairs=namespace.pairs,
        int8_budget_db=namespace.budget_db,
        fp16_budget_db=namespace.fp16_budget_db,
        force=namespace.force,
        plan=plan,
        timing_cache=namespace.out / _TIMING_CACHE,
    )
    return ExportOptions(namespace.checkpoint, namespace.out, namespace.overwrite, config)
