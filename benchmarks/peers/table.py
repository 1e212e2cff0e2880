"""Results of the comparison with other tools as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.harness.markdown import format_number, format_table
from benchmarks.peers.ratios import TITLES

_COLUMNS = (
    "network",
    "implementation",
    "agreement (dB)",
    "loss (dB)",
    "p50 (ms)",
    "p90 (ms)",
    "MAD (ms)",
    "queries",
    "remark",
)
_SPEEDUP_COLUMNS = ("comparison", "speed-up (ratio)", "95 % confidence interval", "slower", "faster")


def format_tables(results: Mapping[str, Any]) -> str:
    """Return the implementations with their output check and times, and the named speed-ups.

    `results` is `peers` of schema.json.
    """
    width, height = results["size"]
    turns = results["turns"]
    networks = "; ".join(f"{network['name']} with {network['weights']} weights" for network in results["networks"])
    method = (
        f"Frames of {width}x{height}, 8 bit in and out; times from a frame in memory to its result in memory. "
        f"CPU threads of each implementation: {results['threads']}. Alternating runs: {turns['rounds']} rounds; each "
        f"block begins after a pause of {turns['pause_ms']:g} ms and one query that is not counted. "
        f"Networks: {networks}. Agreement is the PSNR against PyTorch eager on the worst of "
        f"{results['checked_frames']} frames; loss is the mean PSNR against the ground truth that is lost compared "
        f"with PyTorch eager. The times of the plain export contain {format_number(results['numpy_ms'])} ms of NumPy "
        "before and after the network."
    )
    speedups = "Speed-up: time of the slower implementation divided by the time of the faster one."
    return "\n\n".join((method, _implementations_table(results), speedups, _speedups_table(results)))


def _implementations_table(results: Mapping[str, Any]) -> str:
    rows = []
    for implementation in results["contenders"]:
        check, host = implementation["check"], implementation["host"]
        scores = [f"{check['agreement_db']:.1f}", f"{check['loss_db']:.3f}"] if check else ["-", "-"]
        if host:
            times = [*(format_number(host[name]) for name in ("p50_ms", "p90_ms", "mad_ms")), str(host["n"]), ""]
        else:
            status = "rejected" if implementation["status"] == "refused" else implementation["status"]
            times = ["-", "-", "-", "-", f"{status}: {implementation['reason']}"]
        rows.append([implementation["network"], implementation["name"], *scores, *times])
    return format_table(_COLUMNS, rows)


def _speedups_table(results: Mapping[str, Any]) -> str:
    rows = []
    for key, speedup in results["ratios"].items():
        if "not_available" in speedup:
            figures = ["-", "-", f"not available: {speedup['not_available']}", "-"]
        else:
            interval = f"{speedup['low']:.2f} to {speedup['high']:.2f}"
            figures = [f"{speedup['ratio']:.2f}", interval, speedup["slower"], speedup["faster"]]
        rows.append([TITLES.get(key, key), *figures])
    return format_table(_SPEEDUP_COLUMNS, rows)
