"""What runs one and the same network from 8-bit frame to 8-bit frame: what a user would write, and the toolkit."""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.harness.engines import opened
from runtime.engines.onnx import inspect
from runtime.errors import EngineError
from runtime.frame import Pixels, Size
from runtime.spec import Precision
from train.models import Generator, planes, restored_planes

Restorer = Callable[[Pixels], Pixels]
"""uint8[1, H, W, 3] BGR -> the same, restored."""
Role = Literal["peer", "toolkit"]
REDUCED_DB = 0.10
"""What a peer in less than single precision may lose: the budget of the toolkit's own FP16."""
CPU_BACKENDS = (("ONNX Runtime", "cpu"), ("OpenVINO", "openvino"))


class UnavailableError(EngineError):
    """This contender cannot run here."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A generator in eval mode, and the toolkit's engines of it by precision."""

    name: str
    generator: Generator
    weights: str
    """Where they come from."""
    engines: dict[Precision, Path]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to run a network; `budget_db` is what it may lose, None if it has to give the same picture."""

    name: str
    network: str
    role: Role
    precision: Literal["float", "reduced", "int8"]
    backend: Literal["torch", "ONNX Runtime", "OpenVINO", "CUDA"]
    make: Callable[[], Restorer]
    """Raises UnavailableError, or whatever a library raises, where it cannot run."""
    budget_db: float | None = None

    @property
    def label(self) -> str:
        return f"{self.network}, {self.name}"


def peers(network: Network, *, size: Size, threads: int) -> list[Contender]:
    """PyTorch in three ways, and its plain ONNX export on ONNX Runtime and OpenVINO, on the CPU.

    Before and after the network stand the few lines of PyTorch or NumPy that a user writes.
    """
    generator = network.generator
    exported = Once(lambda: plain_export(generator, size=size))

    def peer(name: str, backend: Any, make: Callable[[], Restorer], budget_db: float | None = None) -> Contender:
        return Contender(
            name=name,
            network=network.name,
            role="peer",
            precision="float" if budget_db is None else "reduced",
            backend=backend,
            make=make,
            budget_db=budget_db,
        )

    return [
        peer("torch eager", "torch", lambda: eager(generator)),
        peer("torch eager, channels_last", "torch", lambda: channels_last(generator)),
        peer("torch.compile", "torch", lambda: compiled(generator)),
        peer("plain export, ONNX Runtime", "ONNX Runtime", lambda: on_onnxruntime(generator, exported(), threads)),
        peer(
            "plain export, OpenVINO in float32",
            "OpenVINO",
            lambda: on_openvino(generator, exported(), threads, INFERENCE_PRECISION_HINT="f32"),
        ),
        peer(
            "plain export, OpenVINO's defaults",  # bfloat16, where the CPU has it
            "OpenVINO",
            lambda: on_openvino(generator, exported(), threads),
            REDUCED_DB,
        ),
    ]


def toolkit(network: Network, *, threads: int) -> list[Contender]:
    """The toolkit's engines of a network on both CPU backends."""
    found = []
    for precision, path in network.engines.items():
        for backend, provider in CPU_BACKENDS:
            engine = f"{path}@{provider}"
            budget_db = None if precision == "fp32" else inspect(path).budget_db or 0.0
            found.append(
                Contender(
                    name=f"{precision}, {backend}",
                    network=network.name,
                    role="toolkit",
                    precision="float" if precision == "fp32" else "int8",
                    backend=backend,  # type: ignore[arg-type]
                    make=lambda engine=engine: opened(engine, threads=threads).infer,  # type: ignore[misc]
                    budget_db=budget_db,
                )
            )
    return found


def eager(generator: Generator) -> Restorer:
    """What all others are compared with."""
    return _in_torch(generator, generator, torch.contiguous_format)


def channels_last(generator: Generator) -> Restorer:
    return _in_torch(_copy(generator).to(memory_format=torch.channels_last), generator, torch.channels_last)  # type: ignore[call-overload]


def compiled(generator: Generator) -> Restorer:
    """By inductor, which needs a C++ compiler."""
    network = torch.compile(_copy(generator).to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    return _in_torch(network, generator, torch.channels_last)


def plain_export(generator: Generator, *, size: Size) -> bytes:
    """`torch.onnx.export` for one size, as its documentation shows it."""
    step = generator.multiple_of
    width, height = (-(-side // step) * step for side in size)
    buffer = io.BytesIO()
    # It names every torchvision operator that it cannot find; none is used here.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(generator, (torch.zeros(1, 3, height, width),), dynamo=True, verbose=False)
    assert program is not None
    program.save(buffer)
    return buffer.getvalue()


def on_onnxruntime(
    generator: Generator, model: bytes, threads: int, *, provider: str = "CPUExecutionProvider"
) -> Restorer:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise UnavailableError(f"ONNX Runtime could not start {provider}", hint="install what it needs")
    name = session.get_inputs()[0].name
    return in_numpy(generator, lambda planes: session.run(None, {name: planes})[0])


def on_openvino(generator: Generator, model: bytes, threads: int, **settings: str) -> Restorer:
    try:
        import openvino  # noqa: PLC0415 - only some users have it
    except ImportError as error:
        raise UnavailableError("OpenVINO is not installed", hint="pip install openvino") from error
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        path.write_bytes(model)
        read = core.read_model(path)
        chosen = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **settings}
        request = core.compile_model(read, "CPU", chosen).create_infer_request()
    return in_numpy(generator, lambda planes: request.infer([planes], share_inputs=True)[0])


def planes_of(frames: Pixels, generator: Generator) -> NDArray[np.float32]:
    """uint8[N, H, W, 3] BGR -> float32[N, 3, H, W] in the network's colours and range, padded to its multiple."""
    low, high = generator.pixel_range
    if generator.channel_order == "RGB":
        frames = frames[..., ::-1]
    ordered = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).astype(np.float32)
    missing = [(0, -side % generator.multiple_of) for side in ordered.shape[2:]]
    scaled = ordered * np.float32((high - low) / 255) + np.float32(low)
    return np.pad(scaled, [(0, 0), (0, 0), *missing], mode="edge") if any(map(any, missing)) else scaled


def frames_of(output: NDArray[np.float32], generator: Generator, like: Pixels) -> Pixels:
    """The inverse of `planes_of`: clipped, rounded, cropped to the size of `like`."""
    low, high = generator.pixel_range
    height, width = like.shape[1:3]
    codes = (output[:, :, :height, :width] - np.float32(low)) * np.float32(255 / (high - low))
    frames = np.rint(np.clip(codes, 0, 255)).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(frames[..., ::-1] if generator.channel_order == "RGB" else frames)


def in_numpy(generator: Generator, run: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Restorer:
    return lambda frames: frames_of(run(planes_of(frames, generator)), generator, frames)


def _in_torch(network: nn.Module | Callable[..., Any], generator: Generator, layout: torch.memory_format) -> Restorer:
    def restore(frames: Pixels) -> Pixels:
        with torch.inference_mode():
            before = planes(torch.from_numpy(frames), generator).contiguous(memory_format=layout)
            after: Tensor = restored_planes(network, before, generator)  # type: ignore[arg-type]
            codes = after.mul(255).clamp(0, 255).round().to(torch.uint8)
            ordered = codes.flip(1) if generator.channel_order == "RGB" else codes
            return ordered.permute(0, 2, 3, 1).contiguous().numpy()

    return restore


def _copy(generator: Generator) -> Generator:
    """A layout is a property of the weights: each contender has its own."""
    return copy.deepcopy(generator)


class Once:
    """A value made when it is first asked for."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make, self._value = make, b""

    def __call__(self) -> bytes:
        self._value = self._value or self._make()
        return self._value
