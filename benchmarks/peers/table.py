"""Peers as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.latency.table import number


def tables(results: Mapping[str, Any]) -> str:
    """Contenders with what they were checked to give, and the named ratios; `results` as `peers` in schema.json."""
    width, height = results["size"]
    turns = results["turns"]
    networks = "; ".join(f"{each['name']}: {each['weights']} weights" for each in results["networks"])
    method = (
        f"{width}x{height}, milliseconds from a frame in memory to its result in memory, uint8 both; "
        f"{results['threads']} threads each; {turns['rounds']} rounds in turns, each after {turns['pause_ms']:g} ms of "
        f"rest and one query that is not counted. {networks}. Agreement is PSNR against "
        f"PyTorch eager on the worst of {results['checked_frames']} frames, loss is against their truth. "
        f"NumPy before and after the plain export takes {number(results['numpy_ms'])} ms of its time."
    )
    return "\n\n".join((method, _contenders(results), _ratios(results)))


def _contenders(results: Mapping[str, Any]) -> str:
    lines = [
        "| network | run by | agreement dB | loss dB | p50 | p90 | MAD | N |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in results["contenders"]:
        who, check, host = f"| {each['network']} | {each['name']} ", each["check"], each["host"]
        said = f"| {check['agreement_db']:.1f} | {check['loss_db']:.3f} " if check else "| - | - "
        if host:
            figures = " | ".join(number(host[name]) for name in ("p50_ms", "p90_ms", "mad_ms"))
            lines.append(f"{who}{said}| {figures} | {host['n']} |")
        else:
            lines.append(f"{who}{said}| {each['status']}: {each['reason']} | | | |")
    return "\n".join(lines)


def _ratios(results: Mapping[str, Any]) -> str:
    lines = ["| ratio | times | 95 % | slower | faster |", "|---|---|---|---|---|"]
    for name, each in results["ratios"].items():
        if "not_available" in each:
            lines.append(f"| {name} | - | | {each['not_available']} | |")
        else:
            span = f"{each['low']:.2f} to {each['high']:.2f}"
            lines.append(f"| {name} | {each['ratio']:.2f} | {span} | {each['slower']} | {each['faster']} |")
    return "\n".join(lines)
