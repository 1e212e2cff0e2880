"""Latency results as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harness.markdown import format_number, format_table

_PERCENTILES = ("p50_ms", "p90_ms", "p95_ms", "p99_ms", "max_ms")
_COLUMNS = {
    "single stream": (
        "engine",
        "backend",
        "p50 (ms)",
        "p90 (ms)",
        "p95 (ms)",
        "p99 (ms)",
        "max (ms)",
        "MAD (ms)",
        "queries",
        "first frame (ms)",
        "warm-up queries",
        "warm-up (s)",
    ),
    "slowdown": ("engine", "baseline", "slowdown (ratio)", "95 % confidence interval", "rounds", "verdict"),
    "server": (
        "engine",
        "rate (frames/s)",
        "p50 from due (ms)",
        "p99 from due (ms)",
        "max from due (ms)",
        "p99 from sent (ms)",
        "late queries",
        "rate sustained",
    ),
    "layers": (
        "engine",
        "compute p50 (ms)",
        "host p50 (ms)",
        "end to end p50 (ms)",
        "end to end p99 (ms)",
        "live rate (frames/s)",
        "dropped frames",
        "engine (frames/s)",
        "pipeline (frames/s)",
        "host memory peak (MiB)",
        "host memory before (MiB)",
        "device memory peak (MiB)",
        "device memory before (MiB)",
        "energy (J/frame)",
    ),
    "floor": (
        "engine",
        "time",
        "pipeline (ms/frame)",
        "engine alone (ms/frame)",
        "transcode (ms/frame)",
        "pipeline / floor",
        "range of rounds",
    ),
}


def format_tables(results: Mapping[str, Any]) -> str:
    """Return single stream latency, slowdowns, server scenario and layers; `results` is `latency` of schema.json."""
    width, height = results["size"]
    engines = results["engines"]
    parts = [
        (
            f"Frames of {width}x{height}, source: {results['source']}. MAD is the median absolute deviation. A dash: "
            "not available, or too few queries for the percentile."
        ),
        "Single stream: the next frame is sent when the previous one is done.",
        format_table(_COLUMNS["single stream"], map(_single_stream_row, engines)),
    ]
    if results["ratios"]:
        parts += [
            "Slowdown: time of the engine divided by the time of the baseline.",
            format_table(_COLUMNS["slowdown"], map(_slowdown_row, results["ratios"])),
        ]
    if any(engine["scheduled"] for engine in engines):
        parts += [
            "Server: frames are due at fixed times.",
            format_table(_COLUMNS["server"], map(_server_row, engines)),
        ]
    parts += [
        (
            "Layers: compute on the device, host (frame in memory to result in memory), end to end (decoder, engine "
            "and encoder with a live source), and throughput."
        ),
        format_table(_COLUMNS["layers"], map(_layers_row, engines)),
        *_floor_parts(engines),
        "\n".join(f"- {line}" for line in (*_method(results), *(f"NOTE: {note}" for note in results["notes"]))),
    ]
    return "\n\n".join(parts)


def _single_stream_row(engine: Mapping[str, Any]) -> list[str]:
    host, warm_up = engine["host"], engine["warm_up"]
    percentiles = [format_number(host[name]) for name in _PERCENTILES]
    spread = [format_number(host["mad_ms"]), str(host["n"])]
    warm_up_cells = [format_number(warm_up["first_ms"]), str(warm_up["queries"]), f"{warm_up['seconds']:.1f}"]
    return [engine["name"], engine["backend"], *percentiles, *spread, *warm_up_cells]


def _slowdown_row(slowdown: Mapping[str, Any]) -> list[str]:
    interval = f"{slowdown['low']:.3f} to {slowdown['high']:.3f}"
    figures = [f"{slowdown['ratio']:.3f}", interval, str(slowdown["rounds"]), slowdown["verdict"]]
    return [slowdown["engine"], slowdown["over"], *figures]


def _server_row(engine: Mapping[str, Any]) -> list[str]:
    server = engine["scheduled"]
    from_due, from_sent = server["latency"], server["from_sent"]
    return [
        engine["name"],
        f"{server['rate_fps']:g}",
        *(format_number(from_due[name]) for name in ("p50_ms", "p99_ms", "max_ms")),
        format_number(from_sent["p99_ms"]),
        f"{server['late']} of {from_due['n']}",
        "yes" if server["held"] else "no",
    ]


def _layers_row(engine: Mapping[str, Any]) -> list[str]:
    engine_fps, pipeline = engine["throughput"]["engine_fps"], engine["pipeline"]
    file_fps = pipeline["file_fps"] if pipeline else None
    return [
        engine["name"],
        format_number(engine["compute"].get("p50_ms")),
        format_number(engine["host"]["p50_ms"]),
        *_live_cells(pipeline),
        format_number(engine_fps),
        format_number(file_fps),
        *_memory_cells(engine["memory"]["host"]),
        *_memory_cells(engine["memory"]["device"]),
        _energy_cell(engine["power"]),
    ]


def _floor_parts(engines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the heading and the table of the file jobs and their floors; nothing if no engine has one."""
    floors = [(engine["name"], _floor_of(engine)) for engine in engines]
    rows = [_floor_row(name, floor, kind) for name, floor in floors if "pipeline" in floor for kind in ("cpu", "wall")]
    if rows:
        yield (
            "Pipeline and its floor: a file job against the engine alone, with all slots busy, plus FFmpeg's transcode "
            "of the same clip with the same settings of x264. Processor time is that of all cores. Wall times add up "
            "where engine, decoder and encoder share the processor; where the engine has its own, the ratio may be "
            "below 1."
        )
        yield format_table(_COLUMNS["floor"], rows)


def _floor_of(engine: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `floor` of schema.json, which results of earlier versions lack."""
    floor: Mapping[str, Any] = (engine["pipeline"] or {}).get("floor", {})
    return floor


def _floor_row(name: str, floor: Mapping[str, Any], kind: str) -> list[str]:
    costs = [format_number(floor[part][f"{kind}_ms"]) for part in ("pipeline", "engine", "transcode")]
    ratios = floor[f"rounds_{kind}_ratio"]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return [name, {"cpu": "processor", "wall": "wall"}[kind], *costs, f"{floor[f'{kind}_ratio']:.2f}", spread]


def _live_cells(pipeline: Mapping[str, Any] | None) -> list[str]:
    if not pipeline or not pipeline["live"]["latency"]:
        return ["-"] * 4
    live = pipeline["live"]
    percentiles = [format_number(live["latency"][name]) for name in ("p50_ms", "p99_ms")]
    return [*percentiles, f"{live['rate_fps']:g}", str(live["dropped"])]


def _memory_cells(memory: Mapping[str, Any]) -> list[str]:
    if "not_available" in memory:
        return ["-", "-"]
    return [f"{memory[name]:.0f}" for name in ("peak_mib", "before_mib")]


def _energy_cell(power: Mapping[str, Any]) -> str:
    meters = power.get("meters", [])
    return ", ".join(f"{format_number(meter['joules_per_frame'])} ({meter['covers']})" for meter in meters) or "-"


def _method(results: Mapping[str, Any]) -> Iterator[str]:
    clock, rounds = results["clock"], results["turns"]
    yield (
        f"clock: {clock['name']}, resolution {clock['resolution_ns']} ns, {clock['cost_ns']} ns for a reading, "
        f"{1e6 * clock['skew']:+.1f} ppm against the machine's raw counter"
    )
    if rounds["pause_ms"]:
        yield (
            f"alternating runs: {rounds['rounds']} rounds of {', '.join(map(str, rounds['queries']))} queries; each "
            f"block begins after a pause of {rounds['pause_ms']:g} ms and one query that is not counted"
        )
    yield from _missing(results["engines"])
    if any(engine["pipeline"] for engine in results["engines"]):
        yield "end to end latency ends when the encoder has accepted the frame; x264 buffers some frames (look-ahead)"


def _missing(engines: list[Mapping[str, Any]]) -> list[str]:
    """Return one line for each figure that is not available, with its reason and the engines that it concerns."""
    names_by_reason: dict[str, list[str]] = {}
    for engine in engines:
        memory = ((f"{place} memory", value) for place, value in engine["memory"].items())
        figures = (("compute", engine["compute"]), ("power", engine["power"]), ("floor", _floor_of(engine)))
        for figure, value in (*figures, *memory):
            if "not_available" in value:
                reason = f"{figure} is not available: {value['not_available']}"
                names_by_reason.setdefault(reason, []).append(engine["name"])
    return [
        reason if len(names) == len(engines) else f"{reason} ({', '.join(names)})"
        for reason, names in names_by_reason.items()
    ]
