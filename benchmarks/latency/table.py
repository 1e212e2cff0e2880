"""Latency results as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TAILS = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")


def tables(results: Mapping[str, Any]) -> str:
    """Host latency, its ratios, and the layers beside one another; `results` as `latency` in schema.json."""
    width, height = results["size"]
    parts = [
        f"{width}x{height}, {results['source']}, milliseconds. A dash: too few queries for it, or not available.",
        _host(results),
        _ratios(results) if results["ratios"] else "",
        _scheduled(results) if any(each["scheduled"] for each in results["engines"]) else "",
        _layers(results),
        "\n".join(f"- {line}" for line in [*_method(results), *(f"NOTE: {note}" for note in results["notes"])]),
    ]
    return "\n\n".join(part for part in parts if part)


def _host(results: Mapping[str, Any]) -> str:
    lines = [
        "| engine | runs on | p50 | p90 | p95 | p99 | max | MAD | N | first frame | warm-up |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in results["engines"]:
        host, warm = each["host"], each["warm_up"]
        tails = " | ".join(number(host[name]) for name in _TAILS)
        lines.append(
            f"| {each['name']} | {each['backend']} | {tails} | {number(host['mad_ms'])} | {host['n']} "
            f"| {number(warm['first_ms'])} | {warm['queries']} in {warm['seconds']:.1f} s |"
        )
    return "\n".join(lines)


def _ratios(results: Mapping[str, Any]) -> str:
    lines = ["| engine | takes so many times as long | 95 % | rounds | so it is |", "|---|---|---|---|---|"]
    lines += [
        f"| {each['engine']} | {each['ratio']:.3f} x {each['over']} | {each['low']:.3f} to {each['high']:.3f} "
        f"| {each['rounds']} | {each['verdict']} |"
        for each in results["ratios"]
    ]
    return "\n".join(lines)


def _scheduled(results: Mapping[str, Any]) -> str:
    lines = [
        "| engine, at fixed times | frames/s | p50 from due | p99 | max | p99 from sent | late | held |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in results["engines"]:
        told = each["scheduled"]
        due, sent = told["latency"], told["from_sent"]
        lines.append(
            f"| {each['name']} | {told['rate_fps']:g} | {number(due['p50_ms'])} | {number(due['p99_ms'])} "
            f"| {number(due['max_ms'])} | {number(sent['p99_ms'])} | {told['late']} of {due['n']} "
            f"| {'yes' if told['held'] else 'no'} |"
        )
    return "\n".join(lines)


def _layers(results: Mapping[str, Any]) -> str:
    columns = ("engine", "compute p50", "host p50", "frame-in to frame-out p50, p99", "engine fps", "pipeline fps")
    columns += ("ratio", "host MiB", "device MiB", "J a frame")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for each in results["engines"]:
        engine_fps = each["throughput"]["engine_fps"]
        pipeline = each["pipeline"]
        file_fps = pipeline["file_fps"] if pipeline else None
        lines.append(
            f"| {each['name']} | {number(each['compute'].get('p50_ms'))} | {number(each['host']['p50_ms'])} "
            f"| {_live(pipeline)} | {number(engine_fps)} | {number(file_fps)} "
            f"| {f'{file_fps / engine_fps:.0%}' if file_fps else '-'} | {_memory(each['memory']['host'])} "
            f"| {_memory(each['memory']['device'])} | {_joules(each['power'])} |"
        )
    return "\n".join(lines)


def _live(pipeline: Mapping[str, Any] | None) -> str:
    if not pipeline or not pipeline["live"]["latency"]:
        return "-"
    live = pipeline["live"]
    return (
        f"{number(live['latency']['p50_ms'])}, {number(live['latency']['p99_ms'])} at {live['rate_fps']:g} frames/s "
        f"({live['dropped']} dropped)"
    )


def _memory(told: Mapping[str, Any]) -> str:
    return f"{told['peak_mib']:.0f} ({told['before_mib']:.0f} without)" if "peak_mib" in told else "-"


def _joules(power: Mapping[str, Any]) -> str:
    if "meters" not in power:
        return "-"
    return ", ".join(f"{number(each['joules_per_frame'])} {each['covers']}" for each in power["meters"])


def _method(results: Mapping[str, Any]) -> list[str]:
    clock, turns = results["clock"], results["turns"]
    steps = f"steps of {clock['resolution_ns']} ns, a reading costs {clock['cost_ns']} ns"
    lines = [f"clock: {clock['name']}, {steps}; {1e6 * clock['skew']:+.1f} ppm against the machine's other counter"]
    if turns["pause_ms"]:
        lines.append(
            f"turns: {turns['rounds']} rounds of {', '.join(map(str, turns['queries']))} queries, each after "
            f"{turns['pause_ms']:g} ms of rest and one query that is not counted"
        )
    lines += _missing(results)
    if any(each["pipeline"] for each in results["engines"]):
        lines.append(
            "frame-in to frame-out ends when the encoder has taken the frame; x264 itself holds some back (look-ahead)"
        )
    return lines


def _missing(results: Mapping[str, Any]) -> list[str]:
    """What is not available and why, once for all engines that it holds for."""
    found: dict[str, list[str]] = {}
    for each in results["engines"]:
        for what, told in (("compute", each["compute"]), ("power", each["power"]), *each["memory"].items()):
            if "not_available" in told:
                found.setdefault(f"{what} is not available: {told['not_available']}", []).append(each["name"])
    every = len(results["engines"])
    return [line if len(names) == every else f"{line} ({', '.join(names)})" for line, names in found.items()]


def number(value: float | None) -> str:
    """Three figures; a dash for what is not known."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
