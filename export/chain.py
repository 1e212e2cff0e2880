"""The chain from a checkpoint to proven engines, every step kept by what went into it."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch

from export.graph.channel_order import in_bgr
from export.graph.depth_to_space import in_runs
from export.graph.fuse import collapsed, macs_per_pixel
from export.graph.pixel_interface import with_pixel_interface
from export.plan.builder import PlanConfig, machine, plan_from_onnx
from export.quantization.calibration import Method, chosen, planes, ranges, read_frames
from export.quantization.precision import Layout, Planes, Ranges, convolutions, fp16, int8, prepared
from export.quantization.sensitivity import fitted, losses_db
from export.step_cache import Steps, digest, folder_digest
from export.torch_to_onnx import OPSET, onnx_from_generator, view_of
from export.verify import (
    Pair,
    Restorer,
    Score,
    blurred_score,
    read_pairs,
    require_agreement,
    restorer,
    score,
    tile_costs_db,
)
from runtime.errors import EngineError
from runtime.frame import Pixels
from runtime.sidecar import Sidecar, sidecar_path
from runtime.spec import METADATA_KEY, EngineSpec, Precision
from train.checkpoint import load_generator, weights_path
from train.models import Generator, restore

CALIBRATION_FRAMES = 16
LEAST_AGREEMENT_DB = 50.0
"""On the worst picture; below this a float export differs from PyTorch by more than rounding."""
SENSITIVITY_PX = 192
"""Pictures are cropped to this where every layer is tried alone."""
_TIMED_SIZE = (360, 640)
_END = b"\0"
"""Between a sidecar and its plan where both are kept as one step."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What is exported, and what it may lose."""

    name: str = "deblur"
    """Of the engines, before their precision."""
    precisions: tuple[Precision, ...]
    calibration: Path
    calibration_method: Method | Literal["auto"] = "auto"
    pairs: Path
    int8_budget_db: float = 0.30
    fp16_budget_db: float = 0.10
    force: bool = False
    plan: PlanConfig | None = None
    """Which plans to build from the engines, if any."""
    timing_cache: Path | None = None
    """What TensorRT measured; kept for later exports."""


@dataclass
class Engine:
    """One engine of an export, with all that is known of it."""

    content: bytes
    """Of the ONNX file."""
    spec: EngineSpec
    score: Score
    latency_ms: float


@dataclass
class Export:
    """What an export gives: engines by precision, and what was learned on the way."""

    engines: dict[Precision, Engine] = field(default_factory=dict)
    plans: dict[Precision, tuple[bytes, Sidecar]] = field(default_factory=dict)
    blurred: tuple[float, float] = (0.0, 0.0)
    macs_before: float = 0.0
    macs_after: float = 0.0
    tile_costs_db: dict[int, float] = field(default_factory=dict)
    """What the float engine loses where pictures are taken in tiles, by overlap in pixels."""
    costs_db: dict[str, float] = field(default_factory=dict)
    """What each quantised layer costs alone, the costliest first."""
    methods_db: dict[str, float] = field(default_factory=dict)
    """What a wholly quantised engine loses, by calibration method."""
    method: str = ""
    steps: list[str] = field(default_factory=list)

    def files(self) -> dict[str, bytes]:
        """What is published, by file name."""
        made = {f"{engine.spec.name}.onnx": engine.content for engine in self.engines.values()}
        for content, sidecar in self.plans.values():
            plan = Path(sidecar.onnx).with_suffix(".plan")
            made |= {plan.name: content, sidecar_path(plan).name: sidecar.to_json().encode()}
        return made


class Chain:
    """One export: its inputs, the steps between, and their results."""

    def __init__(self, checkpoint: Path, config: ExportConfig, steps: Steps) -> None:
        """Raises CheckpointError, InputError and UsageError for what cannot be read or used."""
        self.config, self.steps = config, steps
        self.generator, self.settings = load_generator(checkpoint)
        self.weights_sha256 = digest(weights_path(checkpoint).read_bytes())
        self.pairs = list(read_pairs(config.pairs))
        self.pairs_sha256 = folder_digest(config.pairs)
        self.reference = [_restored(self.generator, pair.blurred) for pair in self.pairs]
        self.result = Export(blurred=blurred_score(self.pairs))

    def run(self) -> Export:
        """Make all engines; raises EngineError if one loses more than its budget and `force` is not given."""
        plain = self._step("graph", {}, lambda: onnx_from_generator(self.generator))
        self.core = self._step("collapse", {}, lambda: self._collapsed(plain))
        places = 2 * self.generator.multiple_of // self.generator.patch_px
        self.result.macs_before, self.result.macs_after = (
            macs_per_pixel(model, height=places, width=places) for model in (plain, self.core)
        )
        float_score = self._score(self.core)
        require_agreement(float_score, least_db=LEAST_AGREEMENT_DB, name=f"{self.config.name}_fp32")
        self.float_psnr_db = float_score.psnr_db
        self.result.tile_costs_db = tile_costs_db(restorer(self._wrapped(self.core)), self.pairs)
        for precision in self.config.precisions:
            self._add(precision)
        if self.config.plan:
            self._build_plans(self.config.plan)
        self.result.steps = self.steps.made
        return self.result

    def _collapsed(self, plain: onnx.ModelProto) -> onnx.ModelProto:
        core = prepared(collapsed(plain))
        return in_bgr(core) if self.generator.channel_order == "RGB" else core

    def _add(self, precision: Precision) -> None:
        budget_db = {"fp32": 0.0, "fp16": self.config.fp16_budget_db}.get(precision, self.config.int8_budget_db)
        name = f"{self.config.name}_{precision}"
        facts: dict[str, object] = {}
        if precision == "fp32":
            core = self.core
        elif precision == "fp16":
            core = self._step("fp16", self._calibrated_with(), lambda: fp16(self.core, self._planes()))
        else:
            core, quantised = self._int8(precision)
            left = sum(node.op_type == "Conv" for node in self.core.graph.node) - quantised
            facts = {"float_layers": left, "calibration_sha256": self._calibration_sha256}
        wrapped = self._wrapped(core, in_bytes=self._in_bytes(precision))
        run = restorer(wrapped)
        scored = score(run, self.pairs, self.reference)
        loss_db = self.float_psnr_db - scored.psnr_db
        beyond = loss_db > budget_db + 1e-6
        if beyond and not self.config.force:
            raise EngineError(
                f"loses {loss_db:.2f} dB, its budget is {budget_db:.2f}; worst picture {scored.worst}",
                name,
                hint="give frames of your camera with --calib, a larger --budget-db, or --force to keep it",
            )
        options = ", ".join(f"{name}={value}" for name, value in self.settings["options"].items())
        spec = EngineSpec(
            name=name,
            generator=f"{self.settings['generator']}({options})",
            precision=precision,
            weights_sha256=self.weights_sha256,
            core_sha256=digest(self.core.SerializeToString(deterministic=True)),
            exported_with=f"torch {torch.__version__}, onnx {onnx.__version__}, opset {OPSET}",
            agreement_db=round(scored.agreement_db, 2),
            blurred_psnr_db=round(self.result.blurred[0], 3),
            psnr_db=round(scored.psnr_db, 3),
            loss_db=round(loss_db, 3),
            budget_db=budget_db,
            forced=beyond,
            measured_on=self.config.pairs.name,
        )
        spec = dataclasses.replace(spec, **facts)
        onnx.helper.set_model_props(wrapped, {METADATA_KEY: spec.to_json()})
        content = wrapped.SerializeToString(deterministic=True)
        self.result.engines[precision] = Engine(content, spec, scored, _latency_ms(run))

    def _build_plans(self, config: PlanConfig) -> None:
        """Of every engine but the one in the CPU's layout."""
        inputs: dict[str, object] = {"config": repr(config), "machine": machine(config.flavour)}
        for precision, engine in self.result.engines.items():
            if precision == "int8_cpu":
                continue
            kept = self.steps(
                f"plan_{precision}",
                inputs | {"onnx": digest(engine.content)},
                lambda engine=engine: self._plan(engine, config),
            )
            text, _, plan = kept.partition(_END)
            self.result.plans[precision] = plan, Sidecar.from_json(text.decode())

    def _plan(self, engine: Engine, config: PlanConfig) -> bytes:
        plan, sidecar = plan_from_onnx(
            engine.content,
            engine.spec,
            config,
            name=f"{engine.spec.name}.onnx",
            timing_cache=self.config.timing_cache,
        )
        return sidecar.to_json().encode() + _END + plan

    def _int8(self, layout: Layout) -> tuple[onnx.ModelProto, int]:
        """The INT8 core of a layout with as many quantised layers as its budget allows, and their number."""
        found, calibrated = self._ranges(), self._calibrated_with()
        budget_db = self.config.int8_budget_db

        core = in_runs(self.core) if layout == "int8_cpu" else self.core
        whole = self._in_bytes(layout)
        pixel_range = self.generator.pixel_range if whole else None

        def build(quantised: frozenset[str]) -> onnx.ModelProto:
            return int8(core, found, layout, quantised=quantised, pixel_range=pixel_range)

        def measure(model: onnx.ModelProto) -> float:
            return self.float_psnr_db - self._score(model, in_bytes=whole).psnr_db

        # What layers cost, and so which ones are quantised, depends on the pictures it is measured on.
        measured = calibrated | {"pairs": self.pairs_sha256}
        asked = convolutions(self.core, whole=any(map(self._in_bytes, self.config.precisions)))
        self.result.costs_db = self._kept(
            "sensitivity", measured | {"layers": asked}, lambda: self._costs(found, asked)
        )
        layers = convolutions(self.core, whole=whole)
        costs = {name: loss_db for name, loss_db in self.result.costs_db.items() if name in layers}
        quantised = self._kept(
            layout,
            measured | {"budget_db": budget_db},
            lambda: sorted(fitted(costs, build, measure, budget_db=budget_db).quantised),
        )
        return build(frozenset(quantised)), len(quantised)

    def _costs(self, found: Ranges, layers: list[str]) -> dict[str, float]:
        small = [_cropped(pair, SENSITIVITY_PX) for pair in self.pairs]
        reference = [_restored(self.generator, pair.blurred) for pair in small]
        before = score(restorer(self._wrapped(self.core)), small, reference).psnr_db

        def measure(model: onnx.ModelProto) -> float:
            return before - score(restorer(self._wrapped(model)), small, reference).psnr_db

        return losses_db(layers, lambda names: int8(self.core, found, "int8", quantised=names), measure)

    def _ranges(self) -> Ranges:
        """Of the core's tensors, by the method asked for or the one that loses least."""
        method = self.config.calibration_method
        methods: tuple[Method, ...] = get_args(Method) if method == "auto" else (method,)
        found, calibrated = {}, self._calibrated_with()
        for each in methods:
            kept = self._kept(f"ranges_{each}", calibrated, lambda each=each: ranges(self.core, self._planes(), each))
            found[each] = {name: (low, high) for name, (low, high) in kept.items()}
        if len(found) > 1 and not self.result.methods_db:
            for each, values in found.items():
                model = int8(self.core, values, "int8", quantised=convolutions(self.core))
                self.result.methods_db[each] = self.float_psnr_db - self._score(model).psnr_db
        losses = self.result.methods_db or dict.fromkeys(found, 0.0)
        self.result.method = min(losses, key=losses.__getitem__)
        self._calibration_sha256 = digest(json.dumps(found[self.result.method]))
        return found[self.result.method]

    @cached_property
    def _frames(self) -> list[Pixels]:
        return chosen(read_frames(self.config.calibration), CALIBRATION_FRAMES)

    def _planes(self) -> list[Planes]:
        """The calibration frames as the core sees them."""
        return planes(self._wrapped(self.core), self.core.graph.input[0].name, self._frames)

    def _calibrated_with(self) -> dict[str, object]:
        return {
            "frames": digest(*(frame.tobytes() for frame in self._frames)),
            "method": self.config.calibration_method,
        }

    def _key(self, inputs: dict[str, object]) -> dict[str, object]:
        network = {name: self.settings[name] for name in ("generator", "options")}
        return {"weights": self.weights_sha256, "network": network} | inputs

    def _step(self, name: str, inputs: dict[str, object], make: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
        made = self.steps(name, self._key(inputs), lambda: make().SerializeToString(deterministic=True))
        return onnx.load_from_string(made)

    def _kept(self, name: str, inputs: dict[str, object], make: Callable[[], Any]) -> Any:
        return json.loads(self.steps(name, self._key(inputs), lambda: json.dumps(make()).encode()))

    def _score(self, core: onnx.ModelProto, *, in_bytes: bool = False) -> Score:
        return score(restorer(self._wrapped(core, in_bytes=in_bytes)), self.pairs, self.reference)

    def _wrapped(self, core: onnx.ModelProto, *, in_bytes: bool = False) -> onnx.ModelProto:
        return with_pixel_interface(core, view_of(self.generator), spec=EngineSpec(name="deblur"), in_bytes=in_bytes)

    def _in_bytes(self, precision: Precision) -> bool:
        """Whether frames stay bytes on their way through: in the CPU's layout, where black is 0."""
        return precision == "int8_cpu" and self.generator.pixel_range[0] == 0


def _restored(generator: Generator, blurred: Pixels) -> Pixels:
    return restore(generator, torch.from_numpy(blurred[np.newaxis]))[0].numpy()


def _cropped(pair: Pair, side_px: int) -> Pair:
    top, left = (max(0, (side - side_px) // 2) for side in pair.blurred.shape[:2])
    part = np.s_[top : top + side_px, left : left + side_px]
    return Pair(pair.name, np.ascontiguousarray(pair.blurred[part]), np.ascontiguousarray(pair.sharp[part]))


def _latency_ms(restore_frames: Restorer) -> float:
    """The least of five runs on a frame of 640x360, after one to warm up."""
    frame = np.zeros((1, *_TIMED_SIZE, 3), np.uint8)
    times = []
    for _ in range(6):
        began = time.perf_counter()
        restore_frames(frame)
        times.append(time.perf_counter() - began)
    return 1000 * min(times[1:])
