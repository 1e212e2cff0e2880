"""Table of docs/export.md: what TensorRT-RTX's builder makes of FP16 and INT8 engines."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import torch

from export.graph.channel_order import to_bgr_order
from export.graph.fuse import fuse_convolutions
from export.graph.pixel_interface import add_pixel_interface
from export.plan.builder import build_plan
from export.plan.config import PlanConfig
from export.quantization.calibration import calibrate_ranges, compute_core_inputs
from export.quantization.int8 import quantize_int8
from export.quantization.precision import convert_to_fp16, list_convolutions, prepare_for_quantization
from export.torch_to_onnx import export_to_onnx, get_view
from runtime.engines import BUNDLED
from runtime.frame import Size
from runtime.sidecar import Sidecar
from runtime.spec import EngineSpec
from tests.conftest import make_image
from tests.rig.marked_table import DOCS, MarkedTable, format_rows
from train.models import create_generator

TABLE = MarkedTable(DOCS / "export.md", "plans", "--write-plans")
BUNDLED_NAMES = ("edge-s", "edge-m", "edge-l")
UNTRAINED_NAMES = ("two_stage_cnn", "resnet_unet")
"""Networks with random weights: of their plans only the structure is looked at."""
LARGEST: Size = (1920, 1088)
SMALLEST: dict[str, Size] = {"one size": LARGEST, "64x64 and larger": (64, 64)}
"""Smallest frames of the two plans of each engine; the largest are the same."""
HEADER = ("engine", "sizes", "scratch memory, MB", "kernels", "of them for pixels", "reformats", "convolutions")


def make_untrained_engines(name: str, **network_options: object) -> dict[str, onnx.ModelProto]:
    """Return FP16 and INT8 engines of a network with random weights, by precision.

    In INT8 every convolution that may be quantised is, with one scale for its weights, and the residual has half
    precision, as in the bundled engines.
    """
    torch.manual_seed(0)
    generator = create_generator(name, **network_options).eval()
    core = prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))
    if generator.channel_order == "RGB":
        core = to_bgr_order(core)
    view, spec = get_view(generator), EngineSpec(name=name)
    engine = add_pixel_interface(core, view, spec=spec)
    frames = compute_core_inputs(engine, core.graph.input[0].name, [make_image(64, 64, seed=seed) for seed in range(2)])
    half = convert_to_fp16(core, frames, half_residual=True)
    ranges = calibrate_ranges(core, frames, "minmax")
    int8 = quantize_int8(half, ranges, "int8", layers=list_convolutions(core), per_channel=False)
    cores = {"fp32": core, "fp16": convert_to_fp16(core, frames), "int8": int8}
    return {precision: add_pixel_interface(model, view, spec=spec) for precision, model in cores.items()}


def build_rows(name: str) -> Iterator[tuple[str, str, Sidecar]]:
    """Yield the precision, the sizes and the sidecar of every plan of a network."""
    if name in BUNDLED_NAMES:
        engines = {p: BUNDLED.with_name(f"{name}_{p}.onnx").read_bytes() for p in ("fp16", "int8")}
    else:
        models = make_untrained_engines(name)
        engines = {precision: models[precision].SerializeToString() for precision in ("fp16", "int8")}
    for precision, content in engines.items():
        for sizes, smallest in SMALLEST.items():
            opt_size = LARGEST if smallest == LARGEST else (1280, 720)
            config = PlanConfig(flavour="tensorrt-rtx", min_size=smallest, opt_size=opt_size, max_size=LARGEST)
            _, sidecar = build_plan(content, EngineSpec(name=name), config, name="x.onnx")
            yield precision, sizes, sidecar


def format_row(name: str, precision: str, sizes: str, sidecar: Sidecar) -> list[str]:
    """Return the cells of a plan."""
    assert sidecar.scratch_bytes is not None
    return [
        f"`{name}` {precision.upper()}",
        sizes,
        f"{sidecar.scratch_bytes / 1e6:.1f}",
        str(sidecar.kernels),
        str(sidecar.pixel_kernels),
        str(sidecar.reformats),
        ", ".join(f"{count} {data_type}" for data_type, count in sorted(sidecar.convolutions.items())),
    ]


def format_table(rows: list[list[str]]) -> str:
    """Return the table with its header."""
    return format_rows([HEADER, ["---"] * len(HEADER), *rows])
