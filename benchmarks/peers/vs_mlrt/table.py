"""Results of compared file jobs as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.markdown import format_number, format_table

_COLUMNS = (
    "network",
    "file job",
    "frames/s",
    "range of rounds",
    "processor time (ms/frame)",
    "range of rounds",
    "whole job (s)",
    "PSNR (dB)",
    "agreement (dB)",
    "remark",
)
_RATIO_COLUMNS = ("network", "of", "speed-up (ratio)", "95 % confidence interval", "slower", "faster")


def format_tables(results: Mapping[str, Any]) -> str:
    """Return the jobs with their costs and outputs, and the speed-ups; `results` is `file_jobs` of schema.json."""
    width, height = results["size"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    method = (
        f"A clip of {results['frames']} frames of {width}x{height}, without sound, from file to file, encoded by x264 "
        f"with the same settings. Frames a second and processor time are those of the frames after the first "
        f"{results['head_frames']}, without starting and ending; the whole job contains both. Median and range of "
        f"{results['rounds']} alternating rounds. PSNR is against the ground truth, agreement against the output of "
        f"the first job of the network, both over the planes of every tenth frame. Versions: {versions}."
    )
    ratios = (
        "Speed-up: cost of the cheapest job of vs-mlrt divided by the cost of the cheapest job of the toolkit. vs-mlrt "
        "runs the float export, the toolkit an INT8 engine."
    )
    notes = [f"- NOTE: {note}" for note in results["notes"]]
    says = [f"- {job['network']}, {job['name']}: {'; '.join(job['says'])}" for job in results["jobs"] if job["says"]]
    parts = [
        method,
        format_table(_COLUMNS, [_job_row(job) for job in results["jobs"]]),
        ratios,
        format_table(_RATIO_COLUMNS, [_ratio_row(ratio) for ratio in results["ratios"]]),
        *(["\n".join([*says, *notes])] if says or notes else []),
    ]
    return "\n\n".join(parts)


def _job_row(job: Mapping[str, Any]) -> list[str]:
    cost, check = job["cost"], job["check"]
    figures = ["-"] * 5
    if cost:
        figures = [
            format_number(cost["fps"]),
            _format_range(cost["rounds_fps"]),
            format_number(cost["cpu_ms"]),
            _format_range(cost["rounds_cpu_ms"]),
            f"{cost['whole_s']:.2f}",
        ]
    scores = ["-", "-"]
    if check:
        psnr_db = check["psnr_db"]
        scores = ["-" if psnr_db is None else f"{psnr_db:.2f}", f"{check['agreement_db']:.1f}"]
    status = "rejected" if job["status"] == "refused" else job["status"]
    return [job["network"], job["name"], *figures, *scores, f"{status}: {job['reason']}" if job["reason"] else ""]


def _ratio_row(ratio: Mapping[str, Any]) -> list[str]:
    if "not_available" in ratio:
        return [ratio["network"], ratio["of"], "-", "-", f"not available: {ratio['not_available']}", "-"]
    interval = f"{ratio['low']:.2f} to {ratio['high']:.2f}"
    return [ratio["network"], ratio["of"], f"{ratio['ratio']:.2f}", interval, ratio["slower"], ratio["faster"]]


def _format_range(values: list[float]) -> str:
    return f"{format_number(min(values))} to {format_number(max(values))}"
