"""The list of all steps, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.kinds import PLANS
from benchmarks.gpu_check.steps import Step, Weight

GPU = ("opencv", "driver", "tensorrt", "cuda")
"""What every step with a plan needs."""
STREAM_RATIO = 12
"""Length of the run from decoder to encoder, in durations of a measurement: a minute for five seconds."""
PRECISIONS = ("fp16", "int8", "fp32")
"""Precisions in the order of their worth on a GPU."""
PROVIDERS = ("cuda", "tensorrt", "trt-rtx")
"""Providers of ONNX Runtime that run on an NVIDIA GPU."""
MEMORIES = ("copied", "mapped", "managed")
DAMAGES: dict[str, tuple[str, Weight]] = {
    "version": ("plan of another TensorRT version", "required"),
    "changed": ("plan that its sidecar does not describe", "required"),
    "junk": ("random bytes given to TensorRT", "information"),
    "half": ("half a plan given to TensorRT", "information"),
}
"""Plans that must be refused: what each is, and how the step counts. The runtime keeps damaged plans from TensorRT."""
_BUILD_S = 1200.0
MACHINE = Step(name="machine, drivers and Python modules", function="preflight:check_machine", limit_s=1200.0)
"""The first step; each question in it has a shorter limit of its own."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An ONNX engine to check."""

    name: str
    path: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Folders and lengths of a check."""

    engines: Path
    out: Path
    duration_s: float


def listing(settings: Settings) -> Step:
    """Return the step that reads the folder of engines."""
    arguments = {"folder": str(settings.engines)}
    return Step(name="engines for a GPU", function="engine:list_engines", arguments=arguments, needs=("opencv",))


def list_steps(engines: Sequence[Engine], settings: Settings, trtexec: str | None) -> list[Step]:
    """Return the steps of all engines, then those that one plan is enough for: of the smallest FP16 engine."""
    if not engines:
        return []
    ranks = {name: rank for rank, name in enumerate(PRECISIONS)}
    first = min(engines, key=lambda engine: ranks.get(engine.precision, len(ranks)))
    steps: list[Step] = []
    for engine in engines:
        for kind in ("static", "dynamic"):
            steps += _list_plan_steps(engine, kind, settings)
    steps += list(_list_plan_steps(first, "batch", settings))[:3]
    return [*steps, *_list_single_steps(first, settings, trtexec)]


def name_plan(engine: str, kind: str) -> str:
    """Return the name of a plan for people, such as `edge-s_fp16, one size`."""
    return f"{engine}, {PLANS[kind].title}"


def _plan_path(engine: Engine, kind: str, settings: Settings) -> str:
    return str(settings.out / "plans" / f"{engine.name}_{kind}.plan")


def _build_step(engine: Engine, kind: str) -> str:
    """Return the name of the step that builds a plan."""
    return f"{name_plan(engine.name, kind)}: build the plan"


def _measurement_limit_s(settings: Settings) -> float:
    return 300.0 + 10 * settings.duration_s


def _list_plan_steps(engine: Engine, kind: str, settings: Settings) -> Iterator[Step]:
    name, plan = name_plan(engine.name, kind), _plan_path(engine, kind, settings)
    build = _build_step(engine, kind)
    both = {"onnx": engine.path, "plan": plan, "kind": kind}
    speed = {"plan": plan, "kind": kind, "duration_s": settings.duration_s}

    def step(
        part: str, function: str, arguments: dict[str, Any], limit_s: float = 300.0, weight: Weight = "required"
    ) -> Step:
        return Step(
            name=f"{name}: {part}",
            function=f"engine:{function}",
            arguments=arguments,
            limit_s=limit_s,
            needs=GPU,
            after="" if function == "build_plan" else build,
            weight=weight,
        )

    yield step("build the plan", "build_plan", both, _BUILD_S)
    yield step("list its layers", "list_layers", {"plan": plan}, weight="information")
    yield step("output against the CPU", "compare_output", both, 900.0)
    yield step("speed", "measure_speed", speed, _measurement_limit_s(settings))


def _list_single_steps(engine: Engine, settings: Settings, trtexec: str | None) -> Iterator[Step]:
    """Yield the steps that run once: memory, errors, video, camera, trtexec and the tests."""
    yield from _list_memory_and_error_steps(engine, settings)
    yield from _list_run_steps(engine, settings, trtexec)


def _list_memory_and_error_steps(engine: Engine, settings: Settings) -> Iterator[Step]:
    static, dynamic = (_plan_path(engine, kind, settings) for kind in ("static", "dynamic"))
    after_static, after_dynamic = (_build_step(engine, kind) for kind in ("static", "dynamic"))
    for memory in MEMORIES:
        yield Step(
            name=f"frames in {memory} memory",
            function="memory:measure_memory",
            arguments={"plan": static, "memory": memory, "duration_s": settings.duration_s},
            limit_s=_measurement_limit_s(settings),
            needs=GPU,
            after=after_static,
            weight="information",
        )
    for damage, (what, weight) in DAMAGES.items():
        yield Step(
            name=f"{what}: one clear error",
            function="robustness:refuse_plan",
            arguments={"plan": static, "damage": damage},
            needs=GPU,
            after=after_static,
            weight=weight,
        )
    yield Step(
        name="GPU memory full: one clear error",
        function="robustness:run_out_of_memory",
        arguments={"plan": dynamic},
        needs=GPU,
        after=after_dynamic,
        weight="optional",
    )
    yield Step(
        name="build killed in the middle: no half plan",
        function="robustness:kill_build",
        arguments={"onnx": engine.path, "plan": str(settings.out / "plans" / "killed.plan")},
        limit_s=3 * _BUILD_S,
        needs=GPU,
        after=after_static,
    )


def _list_run_steps(engine: Engine, settings: Settings, trtexec: str | None) -> Iterator[Step]:
    static, dynamic = (_plan_path(engine, kind, settings) for kind in ("static", "dynamic"))
    after_static, after_dynamic = (_build_step(engine, kind) for kind in ("static", "dynamic"))
    stream_s = STREAM_RATIO * settings.duration_s
    yield Step(
        name=f"video for {stream_s:g} s, from decoder to encoder",
        function="stream:run_video",
        arguments={"plan": static, "folder": str(settings.out / "logs"), "seconds": stream_s},
        limit_s=600.0 + 5 * stream_s,
        needs=GPU,
        after=after_static,
    )
    for provider in PROVIDERS:
        yield Step(
            name=f"ONNX Runtime with provider {provider}",
            function="providers:measure_provider",
            arguments={"onnx": engine.path, "provider": provider, "duration_s": settings.duration_s},
            limit_s=_BUILD_S + _measurement_limit_s(settings),
            needs=("opencv", "driver"),
            weight="optional",
        )
    yield Step(
        name="30 frames of a CSI camera",
        function="stream:read_camera",
        arguments={"plan": dynamic},
        needs=(*GPU, "csi"),
        after=after_dynamic,
        weight="optional",
    )
    yield Step(
        name="trtexec with the same engine: at most 10 % faster",
        function="trtexec:compare",
        arguments={"trtexec": trtexec or "", "onnx": engine.path, "plan": static},
        limit_s=3000.0,
        needs=(*GPU, "trtexec"),
        after=after_static,
        weight="optional",
    )
    yield Step(
        name="tests for a GPU: pytest -m gpu",
        function="suite:run_tests",
        limit_s=3600.0,
        needs=(*GPU, "pytest"),
        weight="optional",
    )
