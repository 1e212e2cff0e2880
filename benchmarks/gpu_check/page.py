"""The page of the GPU check in Markdown: verdict, what failed, machine, engines, memory, and all steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.gpu_check.steps import StepResult
from benchmarks.harness.markdown import format_table, join_lines

_PLANS = (
    "engine, plan",
    "build (s)",
    "plan (MB)",
    "scratch (MB)",
    "layers",
    "worst frame against the CPU (dB)",
    "required (dB)",
    "CUDA graph",
    "graph equals plain execution",
)
_SPEED = ("engine, plan", "frame", "GPU p50 (ms)", "GPU p99", "host p50 (ms)", "host p99", "all slots (frames/s)")
_MACHINE_FACTS = {
    "commit": "commit of this toolkit",
    "l4t": "L4T",
    "jetpack": "JetPack",
    "power_mode": "nvpmodel -q",
    "clocks": "jetson_clocks --show",
    "gpu_clock_mhz": "clock rate of the GPU (MHz)",
    "gpu_state": "nvidia-smi",
}
"""Facts of the machine that have a line each, if they are known."""
_PROVIDERS = ("provider", "worst frame (dB)", "required (dB)", "host p50 (ms)", "host p99 (ms)", "backend")
_YES_OR_NO = {None: "-", True: "yes", False: "no"}
_MAX_REASON = 300


def format_page(headline: str, results: Sequence[StepResult], archive: str | None) -> str:
    """Return the page; its first line is `# ` and the verdict. `archive`: name of the archive, if there is one."""
    facts = {result.name: result.facts for result in results}
    machine = next((result.facts for result in results if "modules" in result.facts), {})
    sections = [f"# {headline}"]
    if archive:
        sections.append(
            f"Please attach `{archive}`, which is in the folder of this page, to an issue. It holds this page, the "
            "output of every step, and versions and file names of this machine; no engines and no frames."
        )
    if failed := [result for result in results if result.status == "failed"]:
        lines = [f"- **{result.name}**{_note_weight(result)}: {shorten(result.reason)}" for result in failed]
        sections += ["## Failed", "\n".join(lines)]
    if reasons := Counter(result.reason for result in results if result.status == "not run"):
        lines = [f"- {count} step{'s' * (count > 1)}: {shorten(reason)}" for reason, count in reasons.most_common()]
        sections += ["## Not run", "\n".join(lines)]
    if machine:
        sections += ["## Machine", "\n".join(f"- {line}" for line in _describe_machine(machine))]
    plans = _group_by_plan(facts)
    if any("build_s" in plan for plan in plans.values()):
        sections += ["## Plans", _format_plans(plans)]
    if any("host_p50_ms" in plan for plan in plans.values()):
        sections += [
            "## Speed",
            _format_speed(plans),
            "GPU: computation alone, by the clock of the GPU. Host: from a frame in memory to its result in memory.",
        ]
    memories = [result for result in results if "memory" in result.facts and "runtime_uses" in result.facts]
    if memories:
        sections += ["## Memory of frames", _format_memories(memories)]
    if providers := [result.facts for result in results if "provider" in result.facts]:
        keys = ("provider", "worst_db", "required_db", "host_p50_ms", "host_p99_ms", "backend")
        rows = [[_text(values, key) for key in keys] for values in providers]
        sections += ["## ONNX Runtime on the GPU", format_table(_PROVIDERS, rows)]
    if video := next((result.facts for result in results if "latency_ms" in result.facts), None):
        sections += ["## Video from decoder to encoder", "\n".join(f"- {line}" for line in _describe_video(video))]
    sections += ["## Steps", _format_steps(results)]
    return "\n\n".join(sections)


def _describe_machine(facts: dict[str, Any]) -> Iterator[str]:
    system, gpu = facts["system"], facts.get("gpu") or {}
    if "error" in gpu or not gpu:
        yield f"GPU: {gpu.get('error', 'not asked')}"
    else:
        kind = "integrated" if gpu["integrated"] else "discrete"
        capability = f"compute capability {gpu['compute_capability']}"
        yield f"GPU: {gpu['name']}, {capability}, {kind}, driver for CUDA {gpu['driver']}"
    yield f"{system['cpu']['model']}, {system['cpu']['cores']} cores; {_join(facts.get('memory') or {})}"
    yield f"{system['os']}, {system['kernel']}, Python {system['python']}"
    for name, title in _MACHINE_FACTS.items():
        if value := facts.get(name):
            yield f"{title}: {join_lines(value if isinstance(value, str) else _join(value))}"
    for name, answer in facts["modules"].items():
        yield f"{name}: " + (answer.get("error") or f"{answer['version']}, {answer['file']}")
    opencv = facts.get("opencv_with_numpy") or {}
    works = f"does not work ({opencv['error']})" if "error" in opencv else "works"
    yield f"OpenCV with this NumPy: {works}; GStreamer: {'yes' if opencv.get('gstreamer') else 'no'}"
    tools = dict(facts.get("tools") or {}) | {"trtexec": facts.get("trtexec")}
    yield f"tools: {', '.join(f'{name} {path}' if path else f'no {name}' for name, path in tools.items())}"


def _group_by_plan(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the facts of all steps of a plan together, by the name of the plan: the part of a step before `: `."""
    plans: dict[str, dict[str, Any]] = {}
    for name, values in facts.items():
        plan, colon, _ = name.partition(": ")
        if colon and values:
            plans.setdefault(plan, {}).update(values)
    return {name: values for name, values in plans.items() if "plan_mb" in values}


def _format_plans(plans: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, plan in plans.items():
        types = ", ".join(f"{count} {kind}" for kind, count in (plan.get("layer_types") or {}).items())
        layers = f"{plan['layers']} ({types})" if "layers" in plan else "-"
        graph = [_YES_OR_NO[plan.get(key)] for key in ("has_graph", "graph_equals_plain")]
        costs = [_text(plan, key) for key in ("build_s", "plan_mb", "scratch_mb")]
        rows.append([name, *costs, layers, _text(plan, "worst_db"), _text(plan, "required_db"), *graph])
    return format_table(_PLANS, rows)


def _format_speed(plans: dict[str, dict[str, Any]]) -> str:
    keys = ("size", "compute_p50_ms", "compute_p99_ms", "host_p50_ms", "host_p99_ms", "throughput_fps")
    rows = [[name, *(_text(plan, key) for key in keys)] for name, plan in plans.items() if "host_p50_ms" in plan]
    return format_table(_SPEED, rows)


def _format_memories(results: Sequence[StepResult]) -> str:
    rows = [
        [str(result.facts["memory"]), _text(result.facts, "host_p50_ms"), _text(result.facts, "host_p99_ms")]
        for result in results
    ]
    table = format_table(("memory", "host p50 (ms)", "host p99 (ms)"), rows)
    times = {result.facts["memory"]: result.facts["host_p50_ms"] for result in results if "host_p50_ms" in result.facts}
    if not times:
        return table
    best, used = min(times, key=lambda name: times[name]), results[0].facts["runtime_uses"]
    return f"{table}\n\nFastest: **{best}**. The runtime uses {used} memory on this GPU."


def _describe_video(facts: dict[str, Any]) -> Iterator[str]:
    yield f"{facts['frames']} frames in {facts['seconds']:.1f} s: {facts['fps']:.1f} frames/s; {facts['backend']}"
    for stage, times_ms in facts["latency_ms"].items():
        yield f"{stage}: " + ", ".join(f"{name} {value:.1f} ms" for name, value in times_ms.items())
    power = facts["power"]
    for meter in power.get("meters", []):
        yield _describe_meter(meter)
    if "not_available" in power:
        yield f"no power measured: {power['not_available']}"
    yield f"state of the machine every second: {facts['sampler'] or 'neither tegrastats nor nvidia-smi is here'}"


def _describe_meter(meter: dict[str, Any]) -> str:
    """Return one meter of `power` in the schema of results as a line."""
    parts = [f"{meter['name']} ({meter['covers']}): {meter['mean_w']:.1f} W"]
    if meter["joules_per_frame"] is not None:
        parts.append(f"{meter['joules_per_frame']:.3f} J per frame")
    if meter["gpu_mhz"]:
        parts.append(f"GPU at {meter['gpu_mhz']['mean']:.0f} MHz, at least {meter['gpu_mhz']['min']:.0f} MHz")
    if meter["max_temperature_c"] is not None:
        parts.append(f"up to {meter['max_temperature_c']:.0f} degrees Celsius")
    if meter["throttled"] is not None:
        parts.append(f"throttled by {', '.join(meter['throttled'])}" if meter["throttled"] else "not throttled")
    return ", ".join(parts)


def _note_weight(result: StepResult) -> str:
    return " (for information)" if result.weight == "information" else ""


def _format_steps(results: Sequence[StepResult]) -> str:
    rows = []
    for result in results:
        note = shorten(result.reason or result.facts.get("message") or result.facts.get("note") or "")
        outcome = result.status + (f": {note}" if note else "")
        rows.append([result.name, outcome, f"{result.seconds:.1f}", result.log])
    return format_table(("step", "outcome", "seconds", "output in logs/"), rows)


def _text(facts: dict[str, Any], key: str) -> str:
    value = facts.get(key)
    return "-" if value is None else str(value)


def _join(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def shorten(reason: str) -> str:
    """Return a text on one line, of limited length."""
    text = join_lines(reason)
    return text if len(text) <= _MAX_REASON else f"{text[: _MAX_REASON - 3]}..."
