"""The chain from a checkpoint to verified engines; the result of every step is cached by its inputs."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import onnx
import torch

from export.calibration_set import CalibrationSet
from export.config import ExportConfig
from export.evaluator import Evaluator
from export.former import FormerExport
from export.graph.channel_order import to_bgr_order
from export.graph.fuse import fuse_convolutions
from export.graph.macs import count_macs_per_pixel
from export.int8_chain import Int8Chain
from export.network import NetworkCache, load_network
from export.plan.builder import build_plan, describe_machine
from export.plan.config import PlanConfig
from export.quantization.precision import convert_to_fp16, prepare_for_quantization
from export.result import Engine, ExportResult, Plan
from export.step_cache import StepCache, compute_digest, compute_folder_digest
from export.torch_to_onnx import export_to_onnx
from export.verify import (
    RestorerEngine,
    Score,
    create_restorer,
    measure_blurred,
    measure_tile_losses_db,
    read_pairs,
    require_agreement,
)
from runtime.engines.timing import median_ms_per_frame, trial_frame
from runtime.errors import EngineError
from runtime.frame import Size
from runtime.sidecar import Sidecar
from runtime.spec import METADATA_KEY, EngineSpec, Precision

MIN_AGREEMENT_DB = 50.0
"""Agreement of the float engine with PyTorch on the worst image; less is more than a difference in rounding."""
_TIMED_SIZE: Size = (640, 360)
_SEPARATOR = b"\0"
"""Byte between a sidecar and its plan, which are cached as one result."""


class Chain:
    """One export: its inputs, its steps, and their results."""

    def __init__(self, checkpoint: Path, config: ExportConfig, cache: StepCache, *, former: FormerExport) -> None:
        """Load network and pairs; raises EngineError or InputError if they cannot be read or used.

        `former`: the export that the new one replaces.
        """
        self._config, self._steps, self._former = config, cache, former
        with cache.progress.step("read_pairs"):
            self._network = load_network(checkpoint)
            self._cache = NetworkCache(cache, self._network)
            self._evaluator = Evaluator(self._network, list(read_pairs(config.pairs)))
            self._blurred = measure_blurred(self._evaluator.pairs)
            self.pairs_sha256 = compute_folder_digest(config.pairs)

    def run(self) -> ExportResult:
        """Make and verify all engines.

        Unless `config.force` is set, raises EngineError if one exceeds its budget, or is worse than the one that it
        replaces.
        """
        generator = self._network.generator
        exported = self._cache.get_model("export_to_onnx", {}, lambda: export_to_onnx(generator))
        self._core = self._cache.get_model("fuse_convolutions", {}, lambda: self._rewrite_graph(exported))
        side = 2 * generator.multiple_of // generator.patch_px
        macs_before, macs_after = (
            count_macs_per_pixel(model, height=side, width=side) for model in (exported, self._core)
        )
        float_engine = create_restorer(self._network.wrap(self._core))
        with self._steps.progress.step("measure_score of the float network"):
            float_score = self._evaluator.score(float_engine)
        require_agreement(float_score, min_db=MIN_AGREEMENT_DB, name=f"{self._config.name}_fp32")
        self._float_psnr_db = float_score.psnr_db
        engines = {precision: self._make_engine(precision) for precision in self._config.precisions}
        with self._steps.progress.step("measure_tile_losses_db"):
            tile_losses_db = measure_tile_losses_db(float_engine, self._evaluator.pairs)
        has_int8 = any(precision.startswith("int8") for precision in engines)
        return ExportResult(
            engines=engines,
            plans=self._build_plans(engines, self._config.plan) if self._config.plan else {},
            blurred=self._blurred,
            macs_before=macs_before,
            macs_after=macs_after,
            tile_losses_db=tile_losses_db,
            calibration=self._int8.describe() if has_int8 else None,
            computed_steps=self._steps.computed,
        )

    def _rewrite_graph(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        core = prepare_for_quantization(fuse_convolutions(exported))
        return to_bgr_order(core) if self._network.generator.channel_order == "RGB" else core

    @cached_property
    def _frames(self) -> CalibrationSet:
        return CalibrationSet(self._config.calibration, self._network, self._core)

    @cached_property
    def _int8(self) -> Int8Chain:
        return Int8Chain(
            core=self._core,
            network=self._network,
            evaluator=self._evaluator,
            frames=self._frames,
            config=self._config,
            cache=self._cache,
            pairs_sha256=self.pairs_sha256,
            float_psnr_db=self._float_psnr_db,
        )

    def _make_engine(self, precision: Precision) -> Engine:
        float_layers: int | None = None
        calibration_sha256: str | None = None
        if precision == "fp32":
            core = self._core
        elif precision == "fp16":
            core = self._cache.get_model(
                "convert_to_fp16",
                {"frames": self._frames.sha256, "half_residual": False},
                lambda: convert_to_fp16(self._core, self._frames.compute_inputs()),
            )
        else:
            core, quantized_layers = self._int8.quantize("int8" if precision == "int8" else "int8_cpu")
            float_layers = sum(node.op_type == "Conv" for node in self._core.graph.node) - quantized_layers
            calibration_sha256 = self._int8.calibration_sha256
        model = self._network.wrap(core, keep_bytes=self._network.keeps_bytes(precision))
        restore = create_restorer(model)
        with self._steps.progress.step(f"measure_score of {self._config.name}_{precision}"):
            score = self._evaluator.score(restore)
            (latency_ms,) = median_ms_per_frame([RestorerEngine(restore)], trial_frame(_TIMED_SIZE))
        opset = max(imported.version for imported in core.opset_import if not imported.domain)
        spec = self._describe_engine(precision, score, float_layers, calibration_sha256, opset)
        if not self._config.force:
            self._former.refuse_regression(spec, pairs_sha256=self.pairs_sha256)
        onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
        return Engine(model.SerializeToString(deterministic=True), spec, score, latency_ms)

    def _describe_engine(
        self, precision: Precision, score: Score, float_layers: int | None, calibration_sha256: str | None, opset: int
    ) -> EngineSpec:
        """Return the spec of an engine; raise EngineError if it exceeds its budget, unless `config.force` is set."""
        name = f"{self._config.name}_{precision}"
        budgets_db = {"fp32": 0.0, "fp16": self._config.fp16_budget_db}
        budget_db = budgets_db.get(precision, self._config.int8_budget_db)
        loss_db = self._float_psnr_db - score.psnr_db
        exceeds_budget = loss_db > budget_db + 1e-6
        if exceeds_budget and not self._config.force:
            raise EngineError(
                f"the engine loses {loss_db:.2f} dB, its budget is {budget_db:.2f} dB; worst image {score.worst_image}",
                name,
                hint="give frames of your camera with --calib, a larger --budget-db, or --force to keep it",
            )
        return EngineSpec(
            name=name,
            generator=self._network.description,
            precision=precision,
            weights_sha256=self._network.weights_sha256,
            core_sha256=compute_digest(self._core.SerializeToString(deterministic=True)),
            calibration_sha256=calibration_sha256,
            float_layers=float_layers,
            exported_with=f"torch {torch.__version__}, onnx {onnx.__version__}, opset {opset}",
            agreement_db=round(score.agreement_db, 2),
            blurred_psnr_db=round(self._blurred.psnr_db, 3),
            psnr_db=round(score.psnr_db, 3),
            loss_db=round(loss_db, 3),
            budget_db=budget_db,
            forced=exceeds_budget,
            measured_on=self._config.pairs.name,
        )

    def _build_plans(self, engines: dict[Precision, Engine], config: PlanConfig) -> dict[Precision, Plan]:
        """Return a plan of every engine, except the one in the layout for CPUs."""
        inputs: dict[str, object] = {"config": repr(config), "machine": describe_machine(config.flavour)}
        plans: dict[Precision, Plan] = {}
        for precision, engine in engines.items():
            if precision == "int8_cpu":
                continue

            def build(engine: Engine = engine) -> bytes:
                plan, sidecar = build_plan(
                    engine.content,
                    engine.spec,
                    config,
                    name=f"{engine.spec.name}.onnx",
                    timing_cache=self._config.timing_cache,
                )
                return sidecar.to_json().encode() + _SEPARATOR + plan

            step_inputs = inputs | {"onnx": compute_digest(engine.content)}
            text, _, content = self._steps.get(f"build_plan_{precision}", step_inputs, build).partition(_SEPARATOR)
            plans[precision] = Plan(content, Sidecar.from_json(text.decode()))
        return plans
