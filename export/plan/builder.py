"""Building of TensorRT and TensorRT-RTX plans from ONNX engines; runs on the board itself."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from export.plan.calibrator import open_calibrator
from export.plan.config import PlanConfig
from export.plan.layer_report import count_convolutions, find_scratch_bytes, parse_layers
from runtime.engines.cuda import probe
from runtime.engines.nvidia import create_logger, import_tensorrt
from runtime.errors import EngineError, UsageError
from runtime.frame import Pixels
from runtime.sidecar import Flavour, Sidecar
from runtime.spec import EngineSpec, PixelFormat, frame_shape

_MIN_CAPABILITY = 8.0
"""Oldest compute capability of the default; a plan that 7.5 shares computes INT8 convolutions in float."""
_STATIC_OPTIMIZATION_LEVEL = 5
"""Highest level of the builder (default: 3): it compares more kernels, and code generated for the one frame size."""


def build_plan(
    content: bytes,
    spec: EngineSpec,
    config: PlanConfig,
    *,
    name: str,
    timing_cache: Path | None = None,
    frames: Iterable[Pixels] = (),
) -> tuple[bytes, Sidecar]:
    """Build a plan from an ONNX engine and return the plan and its sidecar.

    `content`: bytes of the ONNX file called `name`, which `spec` describes. `timing_cache`: file in which TensorRT
    keeps its measurements, created if it does not exist. `frames`: uint8[H, W, 3] BGR for `config.calibrator`.
    Raises EngineError with the builder's reason, UsageError for a GPU that the builder does not know.
    """
    trt = import_tensorrt(config.flavour)
    capabilities = (probe().compute_capability,) if config.flavour == "tensorrt" else _choose_capabilities(trt, config)
    log = create_logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_choose_network_flags(trt, config))
    parser = trt.OnnxParser(network, log)
    # The parser accepts some files that are not ONNX, as networks without outputs.
    if not parser.parse(content) or network.num_outputs == 0:
        reason = parser.get_error(0).desc() if parser.num_errors else "it contains no network"
        raise EngineError(
            f"{config.flavour} {trt.__version__} cannot read the engine ({reason})", name, hint="export it again"
        )
    settings, cache = _create_settings(trt, builder, config, timing_cache)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *_list_shapes(config, spec.pixels))
    settings.add_optimization_profile(profile)
    with ExitStack() as stack:
        if config.calibrator:
            calibrator = stack.enter_context(open_calibrator(trt, config.calibrator, frames, config.opt_size))
            settings.set_flag(trt.BuilderFlag.INT8)
            settings.set_calibration_profile(profile)
            settings.int8_calibrator = calibrator
        serialized = builder.build_serialized_network(network, settings)
    if serialized is None:
        raise EngineError(
            f"{config.flavour} {trt.__version__} cannot build a plan ({log.reason()})",
            name,
            hint="give a larger --workspace-mib or smaller frames, or report it with this line",
        )
    if cache is not None and timing_cache:
        with suppress(OSError):  # the plan is complete without it
            timing_cache.parent.mkdir(parents=True, exist_ok=True)
            timing_cache.write_bytes(bytes(cache.serialize()))
    plan = bytes(serialized)
    sidecar = _describe_plan(
        plan=plan,
        content=content,
        spec=spec,
        config=config,
        name=name,
        version=trt.__version__,
        capabilities=capabilities,
        log_lines=[text for _, text in log.records],
    )
    return plan, sidecar


def describe_machine(flavour: Flavour) -> str:
    """Return what a plan depends on besides ONNX file and settings: builder and version, for TensorRT also the GPU."""
    gpu = probe() if flavour == "tensorrt" else None
    return f"{flavour} {import_tensorrt(flavour).__version__}" + (
        f", {gpu.name}, {gpu.compute_capability}" if gpu else ""
    )


def _describe_plan(
    *,
    plan: bytes,
    content: bytes,
    spec: EngineSpec,
    config: PlanConfig,
    name: str,
    version: str,
    capabilities: tuple[str, ...],
    log_lines: list[str],
) -> Sidecar:
    if config.calibrator:
        # The scores were measured without the builder's own quantisation.
        spec = dataclasses.replace(spec, precision="unknown", psnr_db=None, loss_db=None)
    layers = parse_layers(log_lines)
    widths, heights = zip(config.min_size, config.max_size, strict=True)
    return Sidecar(
        engine=dataclasses.replace(spec, width=widths, height=heights),
        batch=(1, config.batch),
        flavour=config.flavour,
        version=version,
        compute_capabilities=capabilities,
        onnx=name,
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        opt_size=config.opt_size,
        workspace_mib=config.workspace_mib,
        calibrator=config.calibrator,
        dla_core=config.dla_core,
        kernels=len(layers) or None,
        pixel_kernels=sum(layer.is_pixel_conversion for layer in layers) if layers else None,
        reformats=sum(layer.is_reformat for layer in layers) if layers else None,
        convolutions=count_convolutions(layers),
        scratch_bytes=find_scratch_bytes(log_lines),
    )


def _choose_network_flags(trt: Any, config: PlanConfig) -> int:
    """Return flags that make the graph decide the precision, unless a calibrator decides it."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") and not config.calibrator else 0


def _create_settings(trt: Any, builder: Any, config: PlanConfig, timing_cache: Path | None) -> tuple[Any, Any | None]:
    """Return the builder's settings and, for TensorRT, its timing cache."""
    settings = builder.create_builder_config()
    settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the log then contains the types of the kernels
    if config.is_static:
        settings.builder_optimization_level = _STATIC_OPTIMIZATION_LEVEL
    if config.workspace_mib:
        settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_mib << 20)
    if config.dla_core is not None:
        settings.default_device_type = trt.DeviceType.DLA
        settings.DLA_core = config.dla_core
        settings.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if config.flavour == "tensorrt-rtx":
        settings.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # without it, CUDA graphs may not be captured
        capabilities = _choose_capabilities(trt, config)
        settings.num_compute_capabilities = len(capabilities)
        for index, capability in enumerate(capabilities):
            settings.set_compute_capability(_list_known_capabilities(trt)[capability], index)
        return settings, None
    return settings, _set_timing_cache(settings, timing_cache)


def _set_timing_cache(settings: Any, path: Path | None) -> Any:
    """Give the builder the measurements in a file, or none if they are damaged or from another version or GPU."""
    stored = b""
    if path:
        with suppress(OSError):
            stored = path.read_bytes()
    for content in (stored, b""):
        cache = settings.create_timing_cache(content)
        if cache is not None and settings.set_timing_cache(cache, ignore_mismatch=False):
            break
    return cache


def _list_shapes(config: PlanConfig, pixels: PixelFormat) -> list[tuple[int, ...]]:
    """Return the smallest, the optimal and the largest shape of a batch."""
    counts = (1, config.batch, config.batch)
    sizes = (config.min_size, config.opt_size, config.max_size)
    if pixels == "yuv420":
        config.require_even_sizes("give even --size, or --min-size, --opt-size and --max-size")
    shapes = zip(counts, sizes, strict=True)
    return [(count, *frame_shape(pixels, width=width, height=height)) for count, (width, height) in shapes]


def _choose_capabilities(trt: Any, config: PlanConfig) -> tuple[str, ...]:
    """Return the compute capabilities that TensorRT-RTX builds for; raise UsageError for one that it does not know."""
    known = sorted(_list_known_capabilities(trt), key=float)
    for capability in config.compute_capabilities:
        if capability not in known:
            raise UsageError(
                f"tensorrt-rtx {trt.__version__} does not run on compute capability {capability}",
                hint=f"give one of {', '.join(known)}",
            )
    return config.compute_capabilities or tuple(name for name in known if float(name) >= _MIN_CAPABILITY)


def _list_known_capabilities(trt: Any) -> dict[str, Any]:
    """Return TensorRT-RTX's constants by compute capability: `8.9` -> ComputeCapability.SM89."""
    matches = (re.fullmatch(r"SM(\d+)(\d)", name) for name in dir(trt.ComputeCapability))
    return {f"{match[1]}.{match[2]}": getattr(trt.ComputeCapability, match[0]) for match in matches if match}
