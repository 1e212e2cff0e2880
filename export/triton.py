"""`python -m export.triton ENGINES --out REPOSITORY`: engines as models of a Triton Inference Server."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Literal

import onnx

from runtime.arguments import parse_size
from runtime.cli import say
from runtime.engines.onnx import inspect
from runtime.errors import DeblurError, InputError, UsageError
from runtime.files import unwritable, write_whole
from runtime.frame import Size
from runtime.sidecar import read_sidecar
from runtime.spec import METADATA_KEY, EngineSpec

Kind = Literal["auto", "cpu", "gpu"]
CONFIG = "config.pbtxt"
_NAMES = ("blurred", "sharp")
"""Of input and output, where no ONNX file lies beside a plan."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.triton", description=__doc__)
    add = parser.add_argument
    add("engines", type=Path, metavar="ENGINES", help="folder of .onnx and .plan files, or one of them")
    add("--out", type=Path, required=True, metavar="REPOSITORY", help="model repository; other models in it stay")
    add("--kind", choices=("auto", "cpu", "gpu"), default="auto", help="where ONNX engines run (default: by precision)")
    add("--instances", type=int, default=1, metavar="N", help="copies of each model (default: 1)")
    add("--batch", type=int, default=4, metavar="N", help="most frames at once, of an .onnx (default: 4)")
    add("--delay-us", type=int, default=2000, metavar="US", help="wait so long for a batch to fill (default: 2000)")
    add(
        "--warm-up",
        type=parse_size,
        default=(1280, 720),
        metavar="WxH",
        help="warm-up frame (default: 1280x720)",
    )
    return parser.parse_args(arguments)


def configuration(
    engine: Path,
    *,
    kind: Kind = "auto",
    instances: int = 1,
    batch: int = 4,
    delay_us: int = 2000,
    warm_up: Size = (1280, 720),
) -> Any:
    """An `inference.ModelConfig`: uint8 frames in and out, dynamic batching, warm-up, and the engine's spec.

    Frames of one batch have one size; Triton sees to it. Raises what opening the engine raises.
    """
    from tritonclient.grpc.model_config_pb2 import (  # noqa: PLC0415 - only for those who have a server
        TYPE_UINT8,
        ModelConfig,
        ModelInstanceGroup,
    )

    spec, (input_name, output_name), backend, most = _facts(engine, batch)
    group = "gpu" if backend == "tensorrt" or (kind == "auto" and spec.precision == "fp16") else kind
    config = ModelConfig(name=_model_name(engine), backend=backend, max_batch_size=most)
    config.default_model_filename = f"model{engine.suffix}"
    frame = [side[0] if side[0] == side[1] else -1 for side in (spec.height, spec.width)]
    for place, name in ((config.input, input_name), (config.output, output_name)):
        place.add(name=name, data_type=TYPE_UINT8, dims=[*frame, 3])
    config.dynamic_batching.max_queue_delay_microseconds = delay_us
    groups = {
        "gpu": ModelInstanceGroup.KIND_GPU,
        "cpu": ModelInstanceGroup.KIND_CPU,
        "auto": ModelInstanceGroup.KIND_CPU,
    }
    config.instance_group.add(count=instances, kind=groups[group])
    height, width = (
        min(max(wanted, low), high)
        for wanted, (low, high) in zip(warm_up[::-1], (spec.height, spec.width), strict=True)
    )
    sample = config.model_warmup.add(name="one frame", batch_size=1)
    sample.inputs[input_name].data_type = TYPE_UINT8
    sample.inputs[input_name].dims.extend([height, width, 3])
    sample.inputs[input_name].random_data = True
    config.parameters[METADATA_KEY].string_value = spec.to_json()
    return config


def _facts(engine: Path, batch: int) -> tuple[EngineSpec, tuple[str, str], str, int]:
    """Spec, names of input and output, Triton's backend, and the most frames at once."""
    if engine.suffix == ".plan":
        sidecar = read_sidecar(engine, engine.read_bytes())
        if sidecar.flavour != "tensorrt":
            raise UsageError("Triton runs TensorRT's plans, not TensorRT-RTX's", engine, hint="give the .onnx")
        beside = engine.with_name(sidecar.onnx)
        names = _onnx_names(beside) if beside.exists() else _NAMES
        return sidecar.engine, names, "tensorrt", sidecar.batch[1]
    spec = inspect(engine)
    free = onnx.load(str(engine), load_external_data=False).graph.input[0].type.tensor_type.shape.dim[0].dim_param
    return spec, _onnx_names(engine), "onnxruntime", batch if free else 0


def _onnx_names(path: Path) -> tuple[str, str]:
    graph = onnx.load(str(path), load_external_data=False).graph
    return graph.input[0].name, graph.output[0].name


def _model_name(engine: Path) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", engine.stem)


def write(engine: Path, repository: Path, config: Any) -> Path:
    """A model of a repository: its configuration, and the engine as version 1 or the next one; raises OutputError."""
    from google.protobuf import text_format  # noqa: PLC0415 - comes with tritonclient

    model = repository / config.name
    versions = [int(path.name) for path in model.glob("*") if path.name.isdecimal()]
    target = model / str(max(versions, default=0) + 1)
    try:
        target.mkdir(parents=True)
        shutil.copyfile(engine, target / config.default_model_filename)
    except OSError as error:
        raise unwritable(target, error) from error
    write_whole(model / CONFIG, text_format.MessageToString(config).encode())
    return target


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = parse(arguments)
    try:
        try:
            import tritonclient.grpc  # noqa: F401, PLC0415
        except ImportError as error:
            raise UsageError("tritonclient is not installed", hint="pip install 'deblur-toolkit[fleet]'") from error
        single = options.engines.is_file()
        found = (
            [options.engines]
            if single
            else sorted(options.engines.glob("*.onnx")) + sorted(options.engines.glob("*.plan"))
        )
        if not found:
            raise InputError("no engines found", options.engines, hint="give what python -m export wrote")
        for engine in found:
            config = configuration(
                engine,
                kind=options.kind,
                instances=options.instances,
                batch=options.batch,
                delay_us=options.delay_us,
                warm_up=options.warm_up,
            )
            say(f"model   {write(engine, options.out, config)}")
    except DeblurError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
