"""Steps from the float core to INT8 cores: calibrate, choose the method, measure layers, quantise within the budget."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import Any, get_args

import numpy as np
import onnx

from export.calibration_set import CalibrationSet
from export.config import ExportConfig, Method
from export.evaluator import Evaluator
from export.graph.depth_to_space import replace_depth_to_space
from export.network import Network, NetworkCache
from export.quantization.calibration import calibrate_ranges, select_methods
from export.quantization.int8 import Layout, Ranges, quantize_int8
from export.quantization.precision import convert_to_fp16, list_convolutions
from export.quantization.sensitivity import measure_layer_losses, quantize_within_budget
from export.result import Calibration
from export.step_cache import compute_digest
from export.verify import create_restorer, crop_centre
from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB, psnr_db

SENSITIVITY_PX = 192
"""Side to which images are cropped while every layer is measured alone."""


class Int8Chain:
    """Quantisation of one float core; what both layouts share is computed once."""

    def __init__(
        self,
        *,
        core: onnx.ModelProto,
        network: Network,
        evaluator: Evaluator,
        frames: CalibrationSet,
        config: ExportConfig,
        cache: NetworkCache,
        pairs_sha256: str,
        float_psnr_db: float,
        model: Int8Chain | None = None,
    ) -> None:
        """`model`: the chain of a core with the same layers, whose choices are tried first."""
        self._core, self._network, self._evaluator = core, network, evaluator
        self._frames, self._config, self._cache = frames, config, cache
        self._pairs_sha256, self._float_psnr_db = pairs_sha256, float_psnr_db
        self._int8_per_channel: bool | None = None
        self._model = model
        self._has_measured_layers = False
        self._found: dict[Layout, dict[str, Any]] = {}
        """Layers to quantise in a layout, and whether their weights have a scale for each channel."""

    def quantize(self, layout: Layout) -> tuple[onnx.ModelProto, int]:
        """Return the core with as many quantised layers as the budget allows, and the number of these layers."""
        ranges = self._ranges_by_method[self._method]
        core = self._prepare_core(layout, half_residual=layout == "int8" and self._has_half_residual)
        keeps_bytes = self._network.keeps_bytes(layout)
        budget_db = self._config.int8_budget_db

        def build(layers: frozenset[str], *, per_channel: bool = True) -> onnx.ModelProto:
            return self._quantize_layers(core, layout, ranges, layers, per_channel=per_channel)

        def measure(model: onnx.ModelProto) -> float:
            return self._float_psnr_db - self._evaluator.score_core(model, keep_bytes=keeps_bytes).psnr_db

        candidates = self._list_candidates(layout)
        suggested = self._model._found.get(layout) if self._model else None  # noqa: SLF001 - of this class

        def search() -> dict[str, Any]:
            if suggested:
                per_channel = suggested["per_channel"]
                if measure(build(frozenset(suggested["layers"]), per_channel=per_channel)) <= budget_db:
                    return suggested
            if layout == "int8" and measure(build(frozenset(candidates), per_channel=False)) <= budget_db:
                return {"layers": candidates, "per_channel": False}

            def rank() -> list[str]:
                return [name for name in self._layer_losses_db if name in candidates]

            count = self._cache.progress.count
            found = quantize_within_budget(candidates, rank, build, measure, budget_db=budget_db, count=count)
            return {"layers": sorted(found.layers), "per_channel": True}

        inputs = self._measurement_inputs | {"budget_db": budget_db, "suggested": suggested}
        if layout == "int8":
            inputs |= {"half_residual": self._has_half_residual}
        found = self._cache.get_json(f"quantize_within_budget_{layout}", inputs, search)
        self._found[layout] = found
        self._has_measured_layers |= len(found["layers"]) < len(candidates)
        if layout == "int8":
            self._int8_per_channel = found["per_channel"]
        return build(frozenset(found["layers"]), per_channel=found["per_channel"]), len(found["layers"])

    @property
    def calibration_sha256(self) -> str:
        """Digest of the ranges that the engines are quantised with."""
        return compute_digest(json.dumps(self._ranges_by_method[self._method]))

    def describe(self) -> Calibration:
        """Return what was measured on the way."""
        half_residual = None if self._int8_per_channel is None else self._has_half_residual
        return Calibration(
            self._method,
            self._agreements_db,
            self._layer_losses_db if self._has_measured_layers else {},
            int8_per_channel=self._int8_per_channel,
            int8_half_residual=half_residual,
        )

    @cached_property
    def _has_half_residual(self) -> bool:
        """Whether the residual may be half precision too: if that loses no more than FP16 may lose."""
        budget_db = self._config.fp16_budget_db

        def is_within_budget() -> bool:
            score = self._evaluator.score_core(self._convert_to_fp16(half_residual=True))
            return self._float_psnr_db - score.psnr_db <= budget_db

        inputs = {"frames": self._frames.sha256, "pairs": self._pairs_sha256, "budget_db": budget_db}
        return bool(self._cache.get_json("choose_residual", inputs, is_within_budget))

    def _convert_to_fp16(self, *, half_residual: bool = False) -> onnx.ModelProto:
        """Return the core in half precision, from which the layout `int8` is made."""
        return self._cache.get_model(
            "convert_to_fp16",
            {"frames": self._frames.sha256, "half_residual": half_residual},
            lambda: convert_to_fp16(
                self._core, self._frames.compute_inputs(self._network, self._core), half_residual=half_residual
            ),
        )

    @property
    def _measurement_inputs(self) -> dict[str, object]:
        """Inputs of steps that measure losses, which depend on the pairs too."""
        return {"frames": self._frames.sha256, "method": self._method, "pairs": self._pairs_sha256}

    @cached_property
    def _ranges_by_method(self) -> dict[Method, Ranges]:
        """Ranges of the core's tensors by the configured method, or by all methods."""
        method = self._model._method if self._model else self._config.calibration_method  # noqa: SLF001 - as above
        methods = self._select_methods() if method == "auto" else [method]
        return {name: self._calibrate(name) for name in methods}

    def _select_methods(self) -> list[Method]:
        methods: list[Method] = self._cache.get_json(
            "select_methods",
            {"frames": self._frames.sha256},
            lambda: select_methods(self._core, self._frames.compute_inputs(self._network, self._core)[0]),
        )
        return methods

    def _calibrate(self, method: Method) -> Ranges:
        ranges = self._cache.get_json(
            f"calibrate_ranges_{method}",
            {"frames": self._frames.sha256},
            lambda: calibrate_ranges(self._core, self._frames.compute_inputs(self._network, self._core), method),
        )
        return {name: (low, high) for name, (low, high) in ranges.items()}

    @cached_property
    def _method(self) -> Method:
        """Method whose engines agree best with the float core, on the frame where they agree least.

        A method that cuts off large values can be the best on average and ruin the one frame that has them.
        The pairs have no part in the choice: engines are reported on them, and would look better than they are.
        """
        return max(self._ranges_by_method, key=lambda method: self._agreements_db.get(method, 0.0))

    @cached_property
    def _agreements_db(self) -> dict[str, float]:
        """Smallest PSNR of quantised networks against the float one by method; empty if there is no choice."""
        if len(self._ranges_by_method) == 1:
            return {}
        agreements_db: dict[str, float] = self._cache.get_json(
            "choose_calibration_method",
            {
                "frames": self._frames.sha256,
                "comparison_frames": self._frames.comparison_sha256,
                "precisions": list(self._config.precisions),
            },
            self._measure_agreements,
        )
        return agreements_db

    def _measure_agreements(self) -> dict[str, float]:
        frames = [self._network.adapt(frame) for frame in self._frames.comparison_frames]
        float_outputs = _restore_all(self._network.wrap(self._core), frames)
        agreements_db: dict[str, float] = {}
        for method, ranges in self._ranges_by_method.items():
            outputs = [image for model in self._quantize_completely(ranges) for image in _restore_all(model, frames)]
            pairs = zip(outputs, itertools.cycle(float_outputs), strict=False)
            agreements_db[method] = float(min(IDENTICAL_DB, *(psnr_db(*pair) for pair in pairs)))
            self._cache.progress.count(len(agreements_db), len(self._ranges_by_method))
        return agreements_db

    def _quantize_completely(self, ranges: Ranges) -> Iterator[onnx.ModelProto]:
        """Yield the completely quantised network in each layout that is exported."""
        for layout in get_args(Layout):
            if layout in self._config.precisions:
                layers = self._list_candidates(layout)
                core = self._quantize_layers(self._prepare_core(layout), layout, ranges, layers)
                yield self._network.wrap(core, keep_bytes=self._network.keeps_bytes(layout))

    def _prepare_core(self, layout: Layout, *, half_residual: bool = False) -> onnx.ModelProto:
        """Return the core that a layout is made from."""
        if layout == "int8":
            return self._convert_to_fp16(half_residual=half_residual)
        return replace_depth_to_space(self._core)

    def _list_candidates(self, layout: Layout) -> list[str]:
        """Return the convolutions that may be quantised in a layout."""
        return list_convolutions(self._core, include_ends=self._network.keeps_bytes(layout))

    def _quantize_layers(
        self,
        core: onnx.ModelProto,
        layout: Layout,
        ranges: Ranges,
        layers: Collection[str],
        *,
        per_channel: bool = True,
    ) -> onnx.ModelProto:
        pixel_range = self._network.code_range if self._network.keeps_bytes(layout) else None
        return quantize_int8(core, ranges, layout, layers=layers, pixel_range=pixel_range, per_channel=per_channel)

    @cached_property
    def _layer_losses_db(self) -> dict[str, float]:
        keeps_bytes = any(self._network.keeps_bytes(precision) for precision in self._config.precisions)
        layers = list_convolutions(self._core, include_ends=keeps_bytes)
        losses_db: dict[str, float] = self._cache.get_json(
            "measure_layer_losses",
            self._measurement_inputs | {"layers": layers},
            lambda: self._measure_layer_losses(layers),
        )
        return losses_db

    def _measure_layer_losses(self, layers: list[str]) -> dict[str, float]:
        ranges = self._ranges_by_method[self._method]
        crops = [crop_centre(pair, SENSITIVITY_PX) for pair in self._evaluator.pairs]
        evaluator = Evaluator(self._network, crops)
        float_psnr_db = evaluator.score_core(self._core).psnr_db

        core = self._convert_to_fp16()

        def build(quantized: frozenset[str]) -> onnx.ModelProto:
            return quantize_int8(core, ranges, "int8", layers=quantized)

        def measure(model: onnx.ModelProto) -> float:
            return float_psnr_db - evaluator.score_core(model).psnr_db

        return measure_layer_losses(layers, build, measure, count=self._cache.progress.count)


def _restore_all(model: onnx.ModelProto, frames: list[Pixels]) -> list[Pixels]:
    restore = create_restorer(model)
    return [restore(frame[np.newaxis])[0] for frame in frames]
