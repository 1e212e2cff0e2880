"""`python -m export.triton ENGINES --out REPOSITORY`: write a model repository for Triton Inference Server."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx

from runtime.arguments import parse_size, whole_number_in
from runtime.cli import run_cli, say
from runtime.engines.onnx import inspect
from runtime.engines.variants import YUV420_SUFFIX
from runtime.errors import InputError, UsageError
from runtime.files import output_error, write_whole
from runtime.frame import Size
from runtime.libraries import install_hint
from runtime.parser import CommandParser
from runtime.sidecar import read_sidecar
from runtime.spec import FLOAT_NCHW, METADATA_KEY, EngineSpec

Kind = Literal["auto", "cpu", "gpu"]
CONFIG = "config.pbtxt"
_TENSOR_NAMES = ("blurred", "sharp")
"""Names of input and output for a plan without its ONNX file."""


@dataclass(frozen=True, kw_only=True)
class ServingConfig:
    """Settings with which Triton runs the models."""

    kind: Kind = "auto"
    """Processor of ONNX engines; `auto`: the GPU for FP16, the CPU for other precisions."""
    instances: int = 1
    """Number of copies of each model."""
    batch: int = 4
    """Largest number of frames per call of an ONNX engine."""
    delay_us: int = 2000
    """Microseconds to wait until a batch is full."""
    warm_up: Size = (1280, 720)
    """Width and height of the frame that warms up a model."""


@dataclass(frozen=True)
class _EngineFacts:
    """Properties of an engine file that a model configuration needs."""

    spec: EngineSpec
    input_name: str
    output_name: str
    backend: str
    """Name of Triton's backend."""
    max_batch: int
    """Largest number of frames per call; 0, Triton's value for no batching, if the engine has a fixed batch size."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandParser("export.triton", description=__doc__)
    files = parser.add_argument_group("input and output").add_argument
    files("engines", type=Path, metavar="ENGINES", help="folder of .onnx and .plan files, or one such file")
    files("--out", type=Path, required=True, metavar="REPOSITORY", help="model repository; its other models stay")
    add = parser.add_argument_group("serving").add_argument
    default = ServingConfig()
    add(
        "--kind",
        choices=("auto", "cpu", "gpu"),
        default=default.kind,
        help="processor for ONNX engines; auto: FP16 on the GPU, others on the CPU (default: auto)",
    )
    add(
        "--instances",
        type=whole_number_in(1, 1024),
        default=default.instances,
        metavar="N",
        help="copies of each model (default: 1)",
    )
    add(
        "--batch",
        type=whole_number_in(1, 1024),
        default=default.batch,
        metavar="N",
        help="largest number of frames per call of an ONNX engine (default: 4)",
    )
    add(
        "--delay-us",
        type=whole_number_in(0, 60_000_000),
        default=default.delay_us,
        metavar="US",
        help="microseconds to wait until a batch is full (default: 2000)",
    )
    add(
        "--warm-up",
        type=parse_size,
        default=default.warm_up,
        metavar="WxH",
        help="size of the warm-up frame (default: 1280x720)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def build_model_config(engine: Path, serving: ServingConfig) -> Any:
    """Return an `inference.ModelConfig`: uint8 frames, dynamic batching, warm-up, and the engine's spec.

    Triton puts only frames of one size into a batch. Raises UsageError for a TensorRT-RTX plan, and EngineError for an
    engine that cannot be opened.
    """
    from tritonclient.grpc.model_config_pb2 import (  # noqa: PLC0415 - an optional dependency
        TYPE_UINT8,
        ModelConfig,
        ModelInstanceGroup,
    )

    facts = _read_engine_facts(engine, serving.batch)
    spec = facts.spec
    if spec.pixels != "bgr":
        raise UsageError("an engine for planes is not served", engine, hint="give the engine for BGR frames")
    config = ModelConfig(name=_derive_model_name(engine), backend=facts.backend, max_batch_size=facts.max_batch)
    config.default_model_filename = f"model{engine.suffix}"
    frame = [low if low == high else -1 for low, high in (spec.height, spec.width)]
    for tensors, name in ((config.input, facts.input_name), (config.output, facts.output_name)):
        tensors.add(name=name, data_type=TYPE_UINT8, dims=[*frame, 3])
    config.dynamic_batching.max_queue_delay_microseconds = serving.delay_us
    runs_on_gpu = (
        facts.backend == "tensorrt" or serving.kind == "gpu" or (serving.kind == "auto" and spec.precision == "fp16")
    )
    kind = ModelInstanceGroup.KIND_GPU if runs_on_gpu else ModelInstanceGroup.KIND_CPU
    config.instance_group.add(count=serving.instances, kind=kind)
    sample = config.model_warmup.add(name="one frame", batch_size=1)
    sample.inputs[facts.input_name].data_type = TYPE_UINT8
    sample.inputs[facts.input_name].dims.extend([*_fit_warm_up(serving.warm_up, spec), 3])
    sample.inputs[facts.input_name].random_data = True
    config.parameters[METADATA_KEY].string_value = spec.to_json()
    return config


def _fit_warm_up(size: Size, spec: EngineSpec) -> tuple[int, int]:
    """Return height and width of the warm-up frame, within the range of the engine."""
    width, height = size
    return (
        min(max(height, spec.height[0]), spec.height[1]),
        min(max(width, spec.width[0]), spec.width[1]),
    )


def _read_engine_facts(engine: Path, batch: int) -> _EngineFacts:
    if engine.suffix == ".plan":
        sidecar = read_sidecar(engine, engine.read_bytes())
        if sidecar.flavour != "tensorrt":
            raise UsageError("Triton runs plans of TensorRT, not of TensorRT-RTX", engine, hint="give the .onnx")
        source = engine.with_name(sidecar.onnx)
        names = _read_tensor_names(source) if source.exists() else _TENSOR_NAMES
        return _EngineFacts(sidecar.engine, *names, backend="tensorrt", max_batch=sidecar.batch[1])
    spec = inspect(engine)
    graph = onnx.load(str(engine), load_external_data=False).graph
    has_free_batch = bool(graph.input[0].type.tensor_type.shape.dim[0].dim_param)
    max_batch = batch if has_free_batch else 0
    return _EngineFacts(spec, *_read_tensor_names(engine), backend="onnxruntime", max_batch=max_batch)


def _read_tensor_names(path: Path) -> tuple[str, str]:
    """Return the names of input and output of an ONNX file."""
    graph = onnx.load(str(path), load_external_data=False).graph
    return graph.input[0].name, graph.output[0].name


def _derive_model_name(engine: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", engine.stem)


def write_model(engine: Path, repository: Path, config: Any) -> Path:
    """Write the configuration of a model, and the engine as version 1 or the next one.

    Return the folder of the version; raises OutputError.
    """
    from google.protobuf import text_format  # noqa: PLC0415 - a dependency of tritonclient

    model = repository / str(config.name)
    versions = [int(path.name) for path in model.glob("*") if path.name.isdecimal()]
    target = model / str(max(versions, default=0) + 1)
    try:
        target.mkdir(parents=True)
        shutil.copyfile(engine, target / config.default_model_filename)
    except OSError as error:
        raise output_error(target, error) from error
    write_whole(model / CONFIG, text_format.MessageToString(config).encode())
    return target


def write_repository(engines: Path, repository: Path, serving: ServingConfig) -> None:
    """Write a model for every engine of a folder, or for one engine; raises DeblurError."""
    try:
        import tritonclient.grpc  # noqa: F401, PLC0415
    except ImportError as error:
        raise UsageError("tritonclient is not installed", hint=install_hint("tritonclient")) from error
    paths = [engines] if engines.is_file() else [*sorted(engines.glob("*.onnx")), *sorted(engines.glob("*.plan"))]
    if not engines.is_file():  # clients send BGR
        paths = [path for path in paths if not path.stem.endswith((YUV420_SUFFIX, FLOAT_NCHW))]
    if not paths:
        raise InputError("no engines found", engines, hint="give a folder that python -m export wrote")
    for path, config in [(path, build_model_config(path, serving)) for path in paths]:
        say(f"model   {write_model(path, repository, config)}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    serving = ServingConfig(
        kind=options.kind,
        instances=options.instances,
        batch=options.batch,
        delay_us=options.delay_us,
        warm_up=options.warm_up,
    )

    def run(_: object) -> int:
        write_repository(options.engines, options.out, serving)
        return 0

    return run_cli(run, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
