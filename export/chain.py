"""The chain from a checkpoint to verified engines; the result of every step is cached by its inputs."""

from __future__ import annotations

import dataclasses

import onnx

from export.calibration_set import CalibrationSet
from export.config import ExportConfig
from export.engine_maker import EngineMaker, PairSet
from export.former import FormerExport
from export.graph.channel_order import to_bgr_order
from export.graph.fuse import fuse_convolutions
from export.graph.macs import count_macs_per_pixel
from export.graph.yuv420 import to_yuv420
from export.network import Network, NetworkCache
from export.plan.builder import build_plan, describe_machine
from export.plan.config import PlanConfig
from export.quantization.precision import prepare_for_quantization
from export.result import Engine, ExportResult, Plan
from export.step_cache import StepCache, compute_digest, compute_folder_digest
from export.verify import measure_blurred, measure_tile_losses_db, read_pairs
from runtime.cli import say
from runtime.errors import UsageError
from runtime.frame import Size
from runtime.sidecar import Sidecar
from train.grid_gate import has_discriminator, require_no_grid

_COUNTED_PX = 128
"""Side of the image that multiply-accumulates are counted on, up to the next multiple: networks may pad small ones."""
_SEPARATOR = b"\0"
"""Byte between a sidecar and its plan, which are cached as one result."""


class Chain:
    """One export: its inputs, its steps, and their results."""

    def __init__(self, network: Network, config: ExportConfig, cache: StepCache, *, former: FormerExport) -> None:
        """Read the pairs and the calibration frames; raises InputError or UsageError if they cannot be read or used.

        `former`: the export that the new one replaces.
        """
        self._network, self._config, self._steps, self._former = network, config, cache, former
        with cache.progress.step("read_pairs"):
            self._cache = NetworkCache(cache, self._network)
            pairs = list(read_pairs(config.pairs))
            self.pairs_sha256 = compute_folder_digest(config.pairs)
            self._pairs = PairSet(pairs=pairs, sha256=self.pairs_sha256, blurred=measure_blurred(pairs))
        self._frames = CalibrationSet(config.calibration)
        if set(config.precisions) != {"fp32"}:
            with cache.progress.step("read_calibration_frames"):
                _ = self._frames.frames  # unusable ones are an error now, not after minutes

    def run(self) -> ExportResult:
        """Make and verify all engines.

        Unless `config.force` is set, raises EngineError if one exceeds its budget, or is worse than the one that it
        replaces.
        """
        exported = self._cache.get_model("export_to_onnx", {}, self._network.export_core)
        core = self._cache.get_model("fuse_convolutions", {}, lambda: self._rewrite_graph(exported))
        view = self._network.view
        if view.size and "bgr" not in self._config.pixels:
            what = f"a network for frames of {view.size[0]}x{view.size[1]} alone has no engines for planes"
            raise UsageError(what, hint="add bgr to --pixels")
        plan_config = self._config.plan and _fit_plan_config(self._config.plan, view.size)
        side = -(-_COUNTED_PX // view.multiple_of) * view.multiple_of // view.patch_px
        width, height = view.size or (side, side)
        macs_before, macs_after = (
            count_macs_per_pixel(model, height=height, width=width) for model in (exported, core)
        )
        self._macs_per_pixel = macs_after
        self._check_grid()
        bgr_maker = self._create_maker(core)
        makers = [bgr_maker] if "bgr" in self._config.pixels else []
        if "yuv420" in self._config.pixels and not view.size:
            makers.append(self._create_planes_maker(core, model=makers[0] if makers else None))
        engines = [maker.make(precision) for maker in makers for precision in self._config.precisions]
        tile_losses_db: dict[int, float] = {}
        if not view.size:
            with self._steps.progress.step("measure_tile_losses_db"):
                tile_losses_db = measure_tile_losses_db(bgr_maker.float_engine, self._pairs.pairs)
        has_int8 = any(precision.startswith("int8") for precision in self._config.precisions)
        return ExportResult(
            engines={engine.spec.variant: engine for engine in engines},
            plans=self._build_plans(engines, plan_config) if plan_config else {},
            blurred=self._pairs.blurred,
            macs_before=macs_before,
            macs_after=macs_after,
            tile_losses_db=tile_losses_db,
            calibration=makers[0].int8.describe() if has_int8 else None,
            notes=self._network.notes,
            computed_steps=self._steps.computed,
        )

    def _check_grid(self) -> None:
        """Raise EngineError if a network that was trained with a discriminator lays a grid over the pairs."""
        if has_discriminator(self._network.settings):
            with self._steps.progress.step("measure_grid"):
                pairs = [(self._network.fit(pair.blurred), pair.sharp) for pair in self._pairs.pairs]
                line = require_no_grid(
                    self._network.generator,
                    self._network.settings,
                    pairs,
                    path=self._config.name,
                    warn_only=self._config.force,
                )
            say(line)

    def _rewrite_graph(self, exported: onnx.ModelProto) -> onnx.ModelProto:
        core = prepare_for_quantization(fuse_convolutions(exported))
        generator = self._network.generator
        return to_bgr_order(core, patch_px=generator.patch_px) if generator.channel_order == "RGB" else core

    def _create_maker(self, core: onnx.ModelProto) -> EngineMaker:
        return EngineMaker(
            core,
            self._network,
            pairs=self._pairs,
            frames=self._frames,
            config=self._config,
            steps=self._steps,
            former=self._former,
            macs_per_pixel=self._macs_per_pixel,
        )

    def _create_planes_maker(self, core: onnx.ModelProto, *, model: EngineMaker | None) -> EngineMaker:
        planes_core, view = to_yuv420(core, self._network.view)
        return EngineMaker(
            prepare_for_quantization(planes_core),
            dataclasses.replace(self._network, planes=view),
            pairs=self._pairs,
            frames=self._frames,
            config=self._config,
            steps=self._steps,
            former=self._former,
            macs_per_pixel=self._macs_per_pixel,
            model=model,
        )

    def _build_plans(self, engines: list[Engine], config: PlanConfig) -> dict[str, Plan]:
        """Return a plan of every engine, except the one in the layout for CPUs."""
        inputs: dict[str, object] = {"config": repr(config), "machine": describe_machine(config.flavour)}
        plans: dict[str, Plan] = {}
        for engine in engines:
            if engine.spec.precision == "int8_cpu":
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
            text, _, content = self._steps.get(f"build_plan_{engine.spec.variant}", step_inputs, build).partition(
                _SEPARATOR
            )
            plans[engine.spec.variant] = Plan(content, Sidecar.from_json(text.decode()))
        return plans


def _fit_plan_config(config: PlanConfig, size: Size | None) -> PlanConfig:
    """Return the settings of plans of a network for frames of `size` alone; raises UsageError for another `--size`."""
    if not size:
        return config
    if config.is_static and config.opt_size != size:
        width, height = size
        raise UsageError(f"the network takes frames of {width}x{height} alone", hint="leave out --size")
    return dataclasses.replace(config, min_size=size, opt_size=size, max_size=size)
