"""Reports of an export: `report.json`, `report.md`, and a plot of latency against PSNR."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import matplotlib as mpl

from export.publish import PARETO
from export.result import Calibration, Engine, ExportResult, Plan
from runtime.spec import FLOAT_NCHW

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

SCHEMA = 2


def build_report(
    result: ExportResult, *, inputs_sha256: str, pairs_sha256: str, not_compared: str = ""
) -> dict[str, Any]:
    """Return the contents of `report.json`.

    `not_compared`: why the engines were not compared with those that they replace; empty if they were.
    """
    calibration = result.calibration or Calibration("", {}, {})
    files = result.list_files()
    return {
        "schema": SCHEMA,
        "inputs_sha256": inputs_sha256,
        "pairs_sha256": pairs_sha256,
        "not_compared": not_compared or None,
        "notes": list(result.notes),
        "macs_per_pixel": {"before": result.macs_before, "after": result.macs_after},
        "blurred": {"psnr_db": round(result.blurred.psnr_db, 3), "ssim": round(result.blurred.ssim, 4)},
        "engines": {variant: _engine_entry(engine) for variant, engine in result.engines.items()},
        "plans": {
            variant: {"bytes": len(plan.content)} | dataclasses.asdict(plan.sidecar)
            for variant, plan in result.plans.items()
        },
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "calibration": {
            "method": calibration.method,
            "agreement_db": calibration.agreements_db,
            "int8_per_channel": calibration.int8_per_channel,
            "int8_half_residual": calibration.int8_half_residual,
        },
        "tile_costs_db": result.tile_losses_db,
        "layer_costs_db": calibration.layer_losses_db,
    }


def _engine_entry(engine: Engine) -> dict[str, Any]:
    return {
        "file": f"{engine.spec.name}.onnx",
        "bytes": len(engine.content),
        "latency_ms_640x360": round(engine.latency_ms, 2),
        "ssim": round(engine.score.ssim, 4),
        "worst_picture": engine.score.worst_image,
        "worst_agreement_db": round(engine.score.worst_agreement_db, 2),
        "spec": engine.spec.to_dict(),
    }


def format_markdown(result: ExportResult, *, cpu: str, not_compared: str = "") -> str:
    """Return the contents of `report.md`.

    `cpu`: the processor that the latencies were measured on. `not_compared`: as for `build_report`.
    """
    lines = _format_engines(result, cpu)
    if not_compared:
        lines += ["", f"**A worse model would not have been refused: {not_compared}.**"]
    lines += ["", f"![latency and PSNR]({PARETO})", *_format_tiles(result), *_format_float_exports(result)]
    if result.plans:
        lines += ["", "## Plans (`build_plan`)", ""]
        lines += ["| plan | MB | builder | GPUs | sizes | kernels | convolutions |", "|---|---|---|---|---|---|---|"]
        lines += [_format_plan(plan) for plan in result.plans.values()]
    if result.calibration:
        lines += _format_calibration(result.calibration, list(result.engines.values()))
    return "\n".join(lines) + "\n"


def _format_engines(result: ExportResult, cpu: str) -> list[str]:
    engines = list(result.engines.values())
    first = engines[0].spec
    lines = [
        f"# {first.generator}",
        "",
        f"Measured on `{first.measured_on}`. PSNR and SSIM compare 8-bit images with the sharp references. Loss is the",
        "PSNR lost against the float network. Latency is that of a frame of 640x360 after a warm-up, median, on ONNX",
        f"Runtime's CPU provider, {cpu}. Convolutions and matrix products take {result.macs_after:,.0f}",
        f"multiply-accumulates per pixel ({result.macs_before:,.0f} before `fuse_convolutions`).",
        "",
        "| engine | MB | latency ms | PSNR dB | SSIM | loss dB | budget dB | worst image, agreement dB with float |",
        "|---|---|---|---|---|---|---|---|",
        f"| blurred images | | | {result.blurred.psnr_db:.2f} | {result.blurred.ssim:.4f} | | | |",
        *(_format_engine(engine) for engine in engines),
    ]
    lines += [line for note in result.notes for line in ("", f"How the network is run: {note}.")]
    if any(engine.spec.pixels == "yuv420" for engine in engines):
        lines += [
            "",
            "Engines for planes (`yuv420`) get the images in 4:2:0, which alone costs PSNR; video has it already.",
        ]
    harm_db = result.blurred.psnr_db - engines[0].score.psnr_db
    if harm_db > 0:
        warning = f"**The blurred images are {harm_db:.2f} dB better than the restored ones.**"
        lines += ["", f"{warning} If your images are of another kind, measure on them: `--pairs DIR`."]
    return lines


def _format_engine(engine: Engine) -> str:
    spec, score = engine.spec, engine.score
    forced = " (forced)" if spec.forced else ""
    return (
        f"| {spec.name}.onnx | {len(engine.content) / 1e6:.2f} | {engine.latency_ms:.1f} | {spec.psnr_db:.2f} "
        f"| {score.ssim:.4f} | {spec.loss_db:.3f}{forced} | {spec.budget_db:.2f} "
        f"| {score.worst_image}, {score.worst_agreement_db:.1f} |"
    )


def _format_tiles(result: ExportResult) -> list[str]:
    if not result.tile_losses_db:
        return []
    losses = ", ".join(f"{loss_db:.3f} dB at {overlap} px" for overlap, loss_db in result.tile_losses_db.items())
    return [
        "",
        "Loss of FP32 when images are restored in tiles of about half their width and height, blended over an overlap:",
        f"{losses}.",
    ]


def _format_float_exports(result: ExportResult) -> list[str]:
    names = [f"`{engine.spec.name}_{FLOAT_NCHW}.onnx`" for engine in result.engines.values() if engine.float_nchw]
    line = "For other programs, `float32[1, 3, H, W]` RGB in 0..1, equal to the engines except for rounding:"
    return ["", line, f"{', '.join(names)}."] if names else []


def _format_plan(plan: Plan) -> str:
    sidecar = plan.sidecar
    (min_width, max_width), (min_height, max_height) = sidecar.engine.width, sidecar.engine.height
    types = ", ".join(f"{count} {data_type}" for data_type, count in sidecar.convolutions.items())
    return (
        f"| {Path(sidecar.onnx).stem}.plan | {len(plan.content) / 1e6:.2f} | {sidecar.flavour} {sidecar.version} "
        f"| {', '.join(sidecar.compute_capabilities)} | {min_width}x{min_height} to {max_width}x{max_height} "
        f"| {sidecar.kernels or ''} | {types} |"
    )


def _format_calibration(calibration: Calibration, engines: list[Engine]) -> list[str]:
    float_layers = [f"{e.spec.float_layers} in {e.spec.variant}" for e in engines if "int8" in e.spec.precision]
    return [
        "",
        f"## Calibration (`calibrate_ranges`): {calibration.method}",
        "",
        *_format_methods(calibration),
        f"Convolutions that are not quantised (`quantize_within_budget`): {', '.join(float_layers)}.",
        *_format_int8(calibration),
        *_format_layers(calibration),
    ]


def _format_layers(calibration: Calibration) -> list[str]:
    if not calibration.layer_losses_db:
        return []
    return [
        "",
        "## Loss of each layer when only that layer is quantised (`measure_layer_losses`)",
        "",
        "| layer | loss dB |",
        "|---|---|",
        *(f"| {name} | {loss_db:.4f} |" for name, loss_db in calibration.layer_losses_db.items()),
    ]


def _format_int8(calibration: Calibration) -> list[str]:
    if calibration.int8_per_channel is None:
        return []
    scales = "a scale for each output channel" if calibration.int8_per_channel else "one scale for each convolution"
    residual = "half precision" if calibration.int8_half_residual else "float32"
    return [f"In `int8`, weights have {scales}, and the residual has {residual}."]


def _format_methods(calibration: Calibration) -> list[str]:
    if not calibration.agreements_db:
        return []
    agreements = (f"- {method}: {agreement_db:.2f} dB" for method, agreement_db in calibration.agreements_db.items())
    return [
        "Agreement of the completely quantised network with the float network by method, on the worst frame; the",
        "pairs have no part in the choice:",
        "",
        *agreements,
        "",
    ]


def draw_pareto(result: ExportResult, path: Path) -> None:
    """Write a plot of latency against PSNR: a point for each engine, and one for the blurred input at 0 ms.

    The upper left is better.
    """
    figure = draw_figure(result)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def draw_figure(result: ExportResult) -> Figure:
    """Return the plot of `draw_pareto`."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    points = {engine.spec.variant: (engine.latency_ms, engine.score.psnr_db) for engine in result.engines.values()}
    for label, point in ({"blurred input": (0.0, result.blurred.psnr_db)} | points).items():
        axes.plot(*point, "o", clip_on=False, label=label)
    axes.legend(fontsize="small")
    axes.margins(0.25)
    axes.set_xlim(left=0.0)
    axes.set_xlabel("latency (ms per frame of 640x360, ONNX Runtime CPU)")
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)
    return figure
