"""Quality as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.latency.table import number


def tables(results: Mapping[str, Any]) -> str:
    """Means, and what is gained at each level of blur; `results` as `quality` in schema.json."""
    method = (
        f"Mean of {results['frames']} frames against their truth, 8 bit. Flicker is dtSSD, in codes; the largest loss "
        "is that of one frame; harmed are frames that lose PSNR."
    )
    parts = [
        method,
        _means(results),
        "PSNR gained, by how blurred frames are: quarters by the PSNR of the blurred input.",
        _levels(results),
    ]
    if any(each["host"] for each in results["restored"]):
        parts.append("ms: the median of a frame in this run; `python -m benchmarks.latency` measures it with care.")
    return "\n\n".join(parts)


def _means(results: Mapping[str, Any]) -> str:
    columns = ("", "PSNR dB", "SSIM", "flicker", "gain dB", "largest loss dB", "harmed", "ms", "dB a ms")
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    rows.append(f"| blurred | {_scores(results['blurred'])} | | | | | |")
    for each in results["restored"]:
        loss = f"{each['largest_loss_db']:.2f}" + (f" ({each['largest_loss_frame']})" if each["harmed_frames"] else "")
        cost = number(each["host"]["p50_ms"]) if each["host"] else "-"
        worth = "-" if each["gain_db_per_ms"] is None else f"{each['gain_db_per_ms']:+.4f}"
        rows.append(
            f"| {each['name']} | {_scores(each)} | {each['gain_db']:+.2f} | {loss} | {each['harmed_frames']} "
            f"| {cost} | {worth} |"
        )
    return "\n".join(rows)


def _scores(told: Mapping[str, Any]) -> str:
    flicker = "-" if told["flicker_codes"] is None else f"{told['flicker_codes']:.2f}"
    return f"{told['psnr_db']:.2f} | {told['ssim']:.4f} | {flicker}"


def _levels(results: Mapping[str, Any]) -> str:
    levels = results["blurred"]["levels"]
    heads = [f"{each['level']} ({each['frames']} at {each['blurred_psnr_db']:.1f} dB)" for each in levels]
    rows = [f"| blur | {' | '.join(heads)} |", "|" + "---|" * (1 + len(heads))]
    for each in results["restored"]:
        gains = [f"{level['gain_db']:+.2f}" for level in each["levels"]]
        rows.append(f"| {each['name']} | {' | '.join(gains)} |")
    return "\n".join(rows)
