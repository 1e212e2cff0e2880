"""Quality results as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.markdown import format_number, format_table

_SCORES = ("PSNR (dB)", "SSIM", "flicker (codes)")
_PERCEPTUAL = {"lpips": ("LPIPS", ".4f"), "niqe": ("NIQE", ".2f"), "grid_codes": ("grid (codes)", ".2f")}
"""Title and format of each score that is measured only if it is asked for."""
_COLUMNS = (
    "PSNR gain (dB)",
    "largest loss (dB)",
    "harmed frames",
    "time (ms/frame)",
    "gain / time (dB/ms)",
)


_ABOUT_PERCEPTUAL = (
    " LPIPS (AlexNet, version 0.1) is a distance to the ground truth, NIQE (Mittal et al. 2013) one to the statistics "
    "of photographs: less is better. The grid is the RMS of what repeats every 4 pixels."
)


def format_tables(results: Mapping[str, Any]) -> str:
    """Return the means and the gain at each level of blur; `results` is `quality` of schema.json."""
    parts = [
        (
            f"Means over {results['frames']} frames against their ground truth, 8 bit. Flicker is dtSSD. The largest "
            "loss is that of a single frame. Harmed frames lose PSNR."
        )
        + (_ABOUT_PERCEPTUAL if "lpips" in results["blurred"] else ""),
        _means_table(results),
        "PSNR gain (dB) by level of blur: quarters of the frames, ordered by the PSNR of the blurred input.",
        _levels_table(results),
    ]
    if any(restored["host"] for restored in results["restored"]):
        parts.append(
            "Time is the median of this run, which is not made for timing; use `python -m benchmarks.latency` to "
            "measure it."
        )
    return "\n\n".join(parts)


def _means_table(results: Mapping[str, Any]) -> str:
    rows = [["blurred input", *_score_cells(results["blurred"]), *["-"] * 5]]
    for restored in results["restored"]:
        frame = f" ({restored['largest_loss_frame']})" if restored["harmed_frames"] else ""
        gain_per_ms = restored["gain_db_per_ms"]
        rows.append(
            [
                restored["name"],
                *_score_cells(restored),
                f"{restored['gain_db']:+.2f}",
                f"{restored['largest_loss_db']:.2f}{frame}",
                str(restored["harmed_frames"]),
                format_number(restored["host"]["p50_ms"] if restored["host"] else None),
                "-" if gain_per_ms is None else f"{gain_per_ms:+.4f}",
            ]
        )
    perceptual = [title for name, (title, _) in _PERCEPTUAL.items() if name in results["blurred"]]
    return format_table(["method", *_SCORES, *perceptual, *_COLUMNS], rows)


def _score_cells(scores: Mapping[str, Any]) -> list[str]:
    flicker = scores["flicker_codes"]
    cells = [f"{scores['psnr_db']:.2f}", f"{scores['ssim']:.4f}", "-" if flicker is None else f"{flicker:.2f}"]
    return cells + [format(scores[name], spec) for name, (_, spec) in _PERCEPTUAL.items() if name in scores]


def _levels_table(results: Mapping[str, Any]) -> str:
    columns = [
        f"{level['level']} blurred ({level['frames']} frames, input {level['blurred_psnr_db']:.1f} dB)"
        for level in results["blurred"]["levels"]
    ]
    rows = [
        [restored["name"], *(f"{level['gain_db']:+.2f}" for level in restored["levels"])]
        for restored in results["restored"]
    ]
    return format_table(["method", *columns], rows)
