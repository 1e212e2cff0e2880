"""`report.md`, `report.json` and the picture of an export: what each engine costs and gives."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import matplotlib as mpl

from export.chain import Export

mpl.use("Agg")
from matplotlib import pyplot as plt

SCHEMA = 1
PARETO = "pareto.png"


def facts(result: Export, *, inputs_sha256: str, pairs_sha256: str) -> dict[str, Any]:
    """What `report.json` holds."""
    engines = {}
    for precision, engine in result.engines.items():
        engines[precision] = {
            "file": f"{engine.spec.name}.onnx",
            "bytes": len(engine.content),
            "latency_ms_640x360": round(engine.latency_ms, 2),
            "ssim": round(engine.score.ssim, 4),
            "worst_picture": engine.score.worst,
            "worst_agreement_db": round(engine.score.worst_agreement_db, 2),
            "spec": engine.spec.to_dict(),
        }
    return {
        "schema": SCHEMA,
        "inputs_sha256": inputs_sha256,
        "pairs_sha256": pairs_sha256,
        "macs_per_pixel": {"before": result.macs_before, "after": result.macs_after},
        "blurred": {"psnr_db": round(result.blurred[0], 3), "ssim": round(result.blurred[1], 4)},
        "engines": engines,
        "plans": {
            precision: {"bytes": len(content)} | dataclasses.asdict(sidecar)
            for precision, (content, sidecar) in result.plans.items()
        },
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in result.files().items()},
        "calibration": {"method": result.method, "loss_db": result.methods_db},
        "tile_costs_db": result.tile_costs_db,
        "layer_costs_db": result.costs_db,
    }


def markdown(report: dict[str, Any], *, cpu: str) -> str:
    """The same for people."""
    first = next(iter(report["engines"].values()))["spec"]
    blurred = report["blurred"]
    macs = report["macs_per_pixel"]
    lines = [
        f"# {first['generator']}",
        "",
        f"Measured on `{first['measured_on']}`: PSNR and SSIM against the sharp pictures, 8 bit; loss is against the",
        "float network; latency is the least of five runs of one 640x360 frame on ONNX Runtime's CPU provider,",
        f"{cpu}. Convolutions and matrix products: {macs['before']:,.0f} multiply-accumulates a pixel as trained,",
        f"{macs['after']:,.0f} after exact collapsing.",
        "",
        "| engine | MB | ms | PSNR dB | SSIM | loss dB | budget dB | worst picture, dB against float |",
        "|---|---|---|---|---|---|---|---|",
        f"| blurred | | | {blurred['psnr_db']:.2f} | {blurred['ssim']:.4f} | | | |",
    ]
    for entry in report["engines"].values():
        spec = entry["spec"]
        forced = " (forced)" if spec["forced"] else ""
        lines.append(
            f"| {entry['file']} | {entry['bytes'] / 1e6:.2f} | {entry['latency_ms_640x360']:.1f} "
            f"| {spec['psnr_db']:.2f} | {entry['ssim']:.4f} | {spec['loss_db']:.3f}{forced} | {spec['budget_db']:.2f} "
            f"| {entry['worst_picture']}, {entry['worst_agreement_db']:.1f} |"
        )
    harm_db = blurred["psnr_db"] - first["psnr_db"]
    if harm_db > 0:
        better = f"**The blurred pictures themselves are {harm_db:.2f} dB better.**"
        lines += ["", f"{better} If yours are of another kind, measure on them: `--pairs DIR`."]
    lines += ["", f"![latency and PSNR]({PARETO})"]
    costs = ", ".join(f"{loss:.3f} dB at {overlap} px" for overlap, loss in report["tile_costs_db"].items())
    lines += ["", f"In tiles of about half a picture's width and height, blended over an overlap, FP32 loses {costs}."]
    if report["plans"]:
        lines += ["", "## Plans", "", "| plan | MB | for | GPUs | sizes | kernels | convolutions |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [_plan_row(plan) for plan in report["plans"].values()]
    if report["calibration"]["method"]:
        lines += ["", f"## Calibration: {report['calibration']['method']}", ""]
        lines += [f"- {name}: {loss:.3f} dB" for name, loss in report["calibration"]["loss_db"].items()]
        kept = {name: entry["spec"]["float_layers"] for name, entry in report["engines"].items() if "int8" in name}
        lines += [
            "",
            "Convolutions left in float: " + ", ".join(f"{count} in {name}" for name, count in kept.items()) + ".",
        ]
        lines += ["", "## What each layer costs when it alone is quantised", "", "| layer | dB |", "|---|---|"]
        lines += [f"| {name} | {loss:.4f} |" for name, loss in report["layer_costs_db"].items()]
    return "\n".join(lines) + "\n"


def _plan_row(plan: dict[str, Any]) -> str:
    (low_width, high_width), (low_height, high_height) = plan["engine"]["width"], plan["engine"]["height"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan["convolutions"].items())
    return (
        f"| {Path(plan['onnx']).stem}.plan | {plan['bytes'] / 1e6:.2f} | {plan['flavour']} {plan['version']} "
        f"| {', '.join(plan['compute_capabilities'])} | {low_width}x{low_height} to {high_width}x{high_height} "
        f"| {plan['kernels'] or ''} | {kinds} |"
    )


def draw(report: dict[str, Any], path: Path) -> None:
    """Latency against PSNR, a point an engine: nearer to the upper left is better."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for entry in report["engines"].values():
        point = (entry["latency_ms_640x360"], entry["spec"]["psnr_db"])
        axes.plot(*point, "o")
        axes.annotate(entry["spec"]["precision"], point, textcoords="offset points", xytext=(6, 4))
    axes.margins(0.25)
    axes.set_xlabel("ms a frame of 640x360, ONNX Runtime CPU")
    axes.set_ylabel("PSNR (dB)")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
