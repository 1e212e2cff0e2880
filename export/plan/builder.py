"""`python -m export.plan X.onnx --out X.plan`: an engine file becomes a TensorRT or TensorRT-RTX plan.

Runs on the board itself: it needs the runtime and the builder, neither torch nor onnx.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.plan.calibrator import Algorithm, calibrator
from runtime.arguments import parse_size
from runtime.engines.cuda import probe
from runtime.engines.nvidia import create_logger, import_tensorrt
from runtime.errors import EngineError, UsageError
from runtime.frame import Size
from runtime.sidecar import Flavour, Sidecar
from runtime.spec import EngineSpec

_LEAST_CAPABILITY = 8.0
_PIXELS = "pixels."
"""What nodes of `export.graph.pixel_interface` are called."""


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """For what frames and which machine a plan is built."""

    flavour: Flavour = "tensorrt"
    min_size: Size = (64, 64)
    opt_size: Size = (1280, 720)
    """What it is fastest at."""
    max_size: Size = (1920, 1088)
    batch: int = 1
    """The greatest number of frames at once, and the one it is fastest at."""
    workspace_mib: int | None = None
    """Scratch memory that the builder may plan with; all there is, if not given."""
    dla_core: int | None = None
    """Deep-learning accelerator of an Orin, for what it can run; the GPU takes the rest."""
    compute_capabilities: tuple[str, ...] = ()
    """TensorRT-RTX: of the GPUs to build for, such as 8.9; all from 8.0 on that it knows, if not given: a plan
    that 7.5 shares computes INT8 convolutions in float. A TensorRT plan is for the GPU that builds it."""
    calibrator: Algorithm | None = None
    """TensorRT up to 10: quantise an FP32 engine while building, instead of following Q/DQ nodes."""

    def __post_init__(self) -> None:
        for axis, name in enumerate(("width", "height")):
            sizes = [size[axis] for size in (self.min_size, self.opt_size, self.max_size)]
            if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
                raise UsageError(
                    f"{name} must grow from --min-size to --opt-size to --max-size, got {sizes}",
                    hint="give all three, or --size",
                )
        if self.batch < 1:
            raise UsageError(f"batch must be at least 1, got {self.batch}", hint="leave out --batch")
        if self.dla_core is not None and not self.min_size == self.opt_size == self.max_size:
            raise UsageError("DLA works on one size of frames", hint="give --size")
        if self.calibrator and self.batch > 1:
            raise UsageError("calibration takes one frame at a time", hint="leave out --batch")
        if self.compute_capabilities and self.flavour == "tensorrt":
            raise UsageError("TensorRT builds for the GPU it runs on", hint="leave out --compute-capability")
        if self.flavour == "tensorrt-rtx" and (self.dla_core is not None or self.calibrator):
            raise UsageError("TensorRT-RTX has neither DLA nor calibrators", hint="leave out --dla and --calibrator")


@dataclass(frozen=True)
class Layer:
    """One kernel of a plan, as the builder reports it."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    """Types of what it reads: Float, Half, Int8, UInt8."""
    nodes: tuple[str, ...]
    """The ONNX nodes that it computes, or a part of them."""

    @property
    def convolves(self) -> bool:
        return self.kind == "correlation" or "Corr" in self.name


def plan_from_onnx(
    content: bytes,
    spec: EngineSpec,
    config: PlanConfig,
    *,
    name: str,
    timing_cache: Path | None = None,
    frames: Iterable[Any] = (),
) -> tuple[bytes, Sidecar]:
    """Build the ONNX engine `content`, described by `spec`, of the file `name`: the plan and what stands beside it.

    `timing_cache`: a file that TensorRT keeps its measurements in, made if it is not there.
    `frames`: uint8[H, W, 3] BGR, for `config.calibrator`. Raises EngineError with the builder's reason.
    """
    trt = import_tensorrt(config.flavour)
    capabilities = (probe().compute_capability,) if config.flavour == "tensorrt" else _capabilities(trt, config)
    log = create_logger(trt)
    builder = trt.Builder(log)
    network = builder.create_network(_network_flags(trt, config))
    parser = trt.OnnxParser(network, log)
    # It accepts some files that are no ONNX, as networks without outputs.
    if not parser.parse(content) or network.num_outputs == 0:
        reason = parser.get_error(0).desc() if parser.num_errors else "no network in it"
        raise EngineError(f"{config.flavour} {trt.__version__} cannot read it ({reason})", name, hint="export it again")
    settings, cache = _settings(trt, builder, config, timing_cache)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *_shapes(config))
    settings.add_optimization_profile(profile)
    if config.calibrator:
        settings.set_flag(trt.BuilderFlag.INT8)
        settings.set_calibration_profile(profile)
        settings.int8_calibrator = calibrator(trt, config.calibrator, frames, config.opt_size)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise EngineError(
            f"{config.flavour} {trt.__version__} did not build it ({log.reason()})",
            name,
            hint="give it more --workspace-mib or smaller frames, or report it with this line",
        )
    if cache is not None and timing_cache:
        with suppress(OSError):  # the plan is what counts
            timing_cache.parent.mkdir(parents=True, exist_ok=True)
            timing_cache.write_bytes(bytes(cache.serialize()))
    if config.calibrator:
        spec = dataclasses.replace(spec, precision="unknown", psnr_db=None, loss_db=None)  # nothing measured it
    made = bytes(plan)
    layers = read_layers(text for _, text in log.records)
    widths, heights = zip(config.min_size, config.max_size, strict=True)
    sidecar = Sidecar(
        engine=dataclasses.replace(spec, width=widths, height=heights),
        batch=(1, config.batch),
        flavour=config.flavour,
        version=trt.__version__,
        compute_capabilities=capabilities,
        onnx=name,
        onnx_sha256=hashlib.sha256(content).hexdigest(),
        plan_sha256=hashlib.sha256(made).hexdigest(),
        opt_size=config.opt_size,
        workspace_mib=config.workspace_mib,
        calibrator=config.calibrator,
        dla_core=config.dla_core,
        kernels=len(layers) or None,
        pixel_kernels=sum(is_pixels(layer) for layer in layers) if layers else None,
        convolutions=dict(Counter(layer.inputs[0] for layer in layers if layer.convolves)),
    )
    return made, sidecar


def machine(flavour: Flavour) -> str:
    """What a plan depends on besides the ONNX file and its config: the builder, and for TensorRT the GPU."""
    gpu = probe() if flavour == "tensorrt" else None
    return f"{flavour} {import_tensorrt(flavour).__version__}" + (
        f", {gpu.name}, {gpu.compute_capability}" if gpu else ""
    )


def read_layers(log: Iterable[str]) -> list[Layer]:
    """Kernels from the builder's log, as TensorRT-RTX 1.7 words it; empty where it says nothing that is known."""
    layers = []
    for line in "\n".join(log).splitlines():
        found = re.match(
            r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)\], Constants: .*"
            r"Outputs: .*, TacticName: .*Metadata: (?P<nodes>.*)",
            line,
        )
        if found and found["kind"] not in {"shape_call", "signal", "wait"}:  # which compute nothing on pixels
            inputs = tuple(re.findall(r"Datatype: (\w+)", found["inputs"]))
            nodes = tuple(re.findall(r"\[ONNX Layer: (.*?)\]", found["nodes"]))
            layers.append(Layer(found["name"], found["kind"], inputs, nodes))
    return layers


def is_pixels(layer: Layer) -> bool:
    """Whether a kernel takes or gives 8-bit frames, or does a part of that conversion."""
    return any(node.startswith(_PIXELS) for node in layer.nodes)


def _network_flags(trt: Any, config: PlanConfig) -> int:
    """Precision is what the graph says, unless a calibrator is to decide."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") and not config.calibrator else 0


def _settings(trt: Any, builder: Any, config: PlanConfig, timing_cache: Path | None) -> tuple[Any, Any | None]:
    """The builder's settings and, for TensorRT, its timing cache."""
    settings = builder.create_builder_config()
    settings.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that the log says which types kernels have
    if config.workspace_mib:
        settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.workspace_mib << 20)
    if config.dla_core is not None:
        settings.default_device_type = trt.DeviceType.DLA
        settings.DLA_core = config.dla_core
        settings.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if config.flavour == "tensorrt-rtx":
        chosen = _capabilities(trt, config)
        settings.num_compute_capabilities = len(chosen)
        for index, each in enumerate(chosen):
            settings.set_compute_capability(_known_capabilities(trt)[each], index)
        return settings, None
    cache = settings.create_timing_cache(timing_cache.read_bytes() if timing_cache and timing_cache.exists() else b"")
    if not settings.set_timing_cache(cache, ignore_mismatch=False):  # of another version or GPU
        cache = settings.create_timing_cache(b"")
        settings.set_timing_cache(cache, ignore_mismatch=False)
    return settings, cache


def _shapes(config: PlanConfig) -> list[tuple[int, int, int, int]]:
    """Least, usual and greatest shape of the frames."""
    counts = (1, config.batch, config.batch)
    sizes = (config.min_size, config.opt_size, config.max_size)
    return [(count, height, width, 3) for count, (width, height) in zip(counts, sizes, strict=True)]


def _capabilities(trt: Any, config: PlanConfig) -> tuple[str, ...]:
    """The GPUs that TensorRT-RTX is to build for."""
    known = sorted(_known_capabilities(trt), key=float)
    for each in config.compute_capabilities:
        if each not in known:
            raise UsageError(
                f"tensorrt-rtx {trt.__version__} does not run on compute capability {each}",
                hint=f"give one of {', '.join(known)}",
            )
    return config.compute_capabilities or tuple(each for each in known if float(each) >= _LEAST_CAPABILITY)


def _known_capabilities(trt: Any) -> dict[str, Any]:
    """`8.9` -> ComputeCapability.SM89."""
    names = (re.fullmatch(r"SM(\d+)(\d)", each) for each in dir(trt.ComputeCapability))
    return {f"{found[1]}.{found[2]}": getattr(trt.ComputeCapability, found[0]) for found in names if found}


def add_options(parser: argparse.ArgumentParser) -> None:
    """What decides a plan, for this command and `python -m export`."""
    add = parser.add_argument_group("plans").add_argument
    add("--size", type=parse_size, metavar="WxH", help="frames of this size only: the fastest plan")
    add(
        "--min-size",
        type=parse_size,
        default=PlanConfig.min_size,
        metavar="WxH",
        help="smallest frame (64x64)",
    )
    add(
        "--opt-size",
        type=parse_size,
        default=PlanConfig.opt_size,
        metavar="WxH",
        help="usual frame (1280x720)",
    )
    add("--max-size", type=parse_size, default=PlanConfig.max_size, metavar="WxH", help="largest (default: 1920x1088)")
    add("--batch", type=int, default=1, metavar="N", help="most frames at once (default: 1)")
    add("--workspace-mib", type=int, metavar="N", help="scratch memory that the builder may plan with")
    add("--dla", type=int, metavar="CORE", help="use this deep-learning accelerator, the GPU for the rest")
    add("--compute-capability", default="", metavar="C,...", help="tensorrt-rtx: of the GPUs (default: all from 8.0)")


def config_of(options: argparse.Namespace, flavour: Flavour, algorithm: Algorithm | None = None) -> PlanConfig:
    """Raises UsageError for what does not go together."""
    sizes = (options.size,) * 3 if options.size else (options.min_size, options.opt_size, options.max_size)
    return PlanConfig(
        flavour=flavour,
        min_size=sizes[0],
        opt_size=sizes[1],
        max_size=sizes[2],
        batch=options.batch,
        workspace_mib=options.workspace_mib,
        dla_core=options.dla,
        compute_capabilities=tuple(each for each in options.compute_capability.split(",") if each),
        calibrator=algorithm,
    )


def summary(sidecar: Sidecar) -> str:
    """One line for people."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sidecar.convolutions.items())
    made = f", {sidecar.kernels} kernels ({kinds} convolutions)" if sidecar.kernels else ""
    return f"{sidecar.flavour} {sidecar.version}, GPUs {', '.join(sidecar.compute_capabilities)}{made}"
