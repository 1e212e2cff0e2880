"""Engines of one form of frames, BGR or planes: made from the float core, verified and described."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import onnx
import torch

from export.calibration_set import CalibrationSet
from export.config import ExportConfig
from export.evaluator import Evaluator
from export.float_export import make_float_export
from export.former import FormerExport
from export.int8_chain import Int8Chain
from export.network import Network, NetworkCache
from export.quantization.precision import convert_to_fp16
from export.result import Engine
from export.step_cache import StepCache, compute_digest
from export.verify import (
    MIN_AGREEMENT_DB,
    Pair,
    Quality,
    Restorer,
    RestorerEngine,
    Score,
    create_restorer,
    require_agreement,
)
from runtime.engines.timing import median_ms_per_frame, trial_frame
from runtime.errors import EngineError
from runtime.frame import Size
from runtime.spec import FLOAT_NCHW, METADATA_KEY, EngineSpec, Precision, variant_name

_TIMED_SIZE: Size = (640, 360)


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """The held-out pairs of an export."""

    pairs: list[Pair]
    sha256: str
    """Digest of their folder."""
    blurred: Quality
    """Quality of the blurred images, without restoration."""


class EngineMaker:
    """Makes the engines of a float core in all precisions.

    `network` says which form of frames the core takes. `former`: the export that the new one replaces. `model`: the
    maker of the engines for BGR, whose calibration method and layers the one for planes tries first.
    """

    def __init__(
        self,
        core: onnx.ModelProto,
        network: Network,
        *,
        pairs: PairSet,
        frames: CalibrationSet,
        config: ExportConfig,
        steps: StepCache,
        former: FormerExport,
        macs_per_pixel: float,
        model: EngineMaker | None = None,
    ) -> None:
        self._macs_per_pixel = macs_per_pixel
        self.core, self._network, self._pairs = core, network, pairs
        self._frames, self._config, self._steps = frames, config, steps
        self._former, self._model = former, model
        self._cache = NetworkCache(steps, network)
        with steps.progress.step(f"restore_pairs as {network.pixels}"):
            self._evaluator = Evaluator(network, pairs.pairs)
        self.float_engine = create_restorer(network.wrap(core))
        """The float engine as a function."""
        with steps.progress.step(f"measure_score of the float network for {network.pixels}"):
            score = self._evaluator.score(self.float_engine)
        require_agreement(score, min_db=MIN_AGREEMENT_DB, name=self._name("fp32"))
        self._float_psnr_db = score.psnr_db

    @cached_property
    def int8(self) -> Int8Chain:
        """Steps to the INT8 cores."""
        return Int8Chain(
            core=self.core,
            network=self._network,
            evaluator=self._evaluator,
            frames=self._frames,
            config=self._config,
            cache=self._cache,
            pairs_sha256=self._pairs.sha256,
            float_psnr_db=self._float_psnr_db,
            model=self._model.int8 if self._model else None,
        )

    def _name(self, precision: Precision) -> str:
        return f"{self._config.name}_{variant_name(precision, self._network.pixels)}"

    def make(self, precision: Precision) -> Engine:
        """Make and verify an engine.

        Unless `config.force` is set, raises EngineError if it exceeds its budget, or is worse than the one that it
        replaces.
        """
        float_layers: int | None = None
        calibration_sha256: str | None = None
        if precision == "fp32":
            core = self.core
        elif precision == "fp16":
            core = self._cache.get_model(
                "convert_to_fp16",
                {"frames": self._frames.sha256, "half_residual": False},
                lambda: convert_to_fp16(self.core, self._frames.compute_inputs(self._network, self.core)),
            )
        else:
            core, quantized_layers = self.int8.quantize("int8" if precision == "int8" else "int8_cpu")
            float_layers = sum(node.op_type == "Conv" for node in self.core.graph.node) - quantized_layers
            calibration_sha256 = self.int8.calibration_sha256
        model = self._network.wrap(core, keep_bytes=self._network.keeps_bytes(precision))
        restore = create_restorer(model)
        with self._steps.progress.step(f"measure_score of {self._name(precision)}"):
            score = self._evaluator.score(restore)
            frame = trial_frame(_TIMED_SIZE, self._network.pixels)
            (latency_ms,) = median_ms_per_frame([RestorerEngine(restore)], frame)
        opset = max(imported.version for imported in core.opset_import if not imported.domain)
        spec = self._describe(precision, score, float_layers, calibration_sha256, opset)
        if not self._config.force:
            self._former.refuse_regression(spec, pairs_sha256=self._pairs.sha256)
        onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
        content = model.SerializeToString(deterministic=True)
        return Engine(content, spec, score, latency_ms, self._make_float_export(core, spec, restore))

    def _make_float_export(self, core: onnx.ModelProto, spec: EngineSpec, engine: Restorer) -> bytes | None:
        """Return the export of an engine for BGR frames with the interface `float_nchw`, if it is asked for."""
        if FLOAT_NCHW not in self._config.interfaces or spec.pixels != "bgr":
            return None
        name = f"{spec.name}_{FLOAT_NCHW}"
        with self._steps.progress.step(f"measure_agreement of {name}"):
            return make_float_export(core, self._network.view, engine=engine, pairs=self._pairs.pairs, name=name)

    def _describe(
        self, precision: Precision, score: Score, float_layers: int | None, calibration_sha256: str | None, opset: int
    ) -> EngineSpec:
        """Return the spec of an engine; raise EngineError if it exceeds its budget, unless `config.force` is set."""
        name = self._name(precision)
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
            pixels=self._network.pixels,
            licence=self._config.licence,
            macs_per_pixel=round(self._macs_per_pixel, 1),
            weights_sha256=self._network.weights_sha256,
            core_sha256=compute_digest(self.core.SerializeToString(deterministic=True)),
            calibration_sha256=calibration_sha256,
            float_layers=float_layers,
            exported_with=f"torch {torch.__version__}, onnx {onnx.__version__}, opset {opset}",
            agreement_db=round(score.agreement_db, 2),
            blurred_psnr_db=round(self._pairs.blurred.psnr_db, 3),
            psnr_db=round(score.psnr_db, 3),
            loss_db=round(loss_db, 3),
            budget_db=budget_db,
            forced=exceeds_budget,
            measured_on=self._config.pairs.name,
        )
