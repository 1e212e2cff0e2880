"""Implementations of one network from 8-bit frame to 8-bit frame: baselines that a user would write, and the toolkit.

"Plain export" is `torch.onnx.export` of the network as trained, without the graph rewriting of the toolkit.
"""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.harness.engines import open_named_engine
from runtime.engines.onnx import inspect
from runtime.errors import EngineError
from runtime.frame import Pixels, Size
from runtime.libraries import import_openvino
from runtime.spec import Precision
from train.models import Generator, nchw_from_frames, restore_nchw

Restorer = Callable[[Pixels], Pixels]
"""Restores uint8[1, H, W, 3] BGR; the output has the same shape and type."""
Role = Literal["peer", "toolkit"]
"""`peer` marks a baseline."""
Backend = Literal["torch", "ONNX Runtime", "OpenVINO", "CUDA"]
REDUCED_DB = 0.10
"""Budget in dB of a baseline in less than single precision; the same as of the toolkit's FP16 engines."""
CPU_BACKENDS: tuple[tuple[Backend, str], ...] = (("ONNX Runtime", "cpu"), ("OpenVINO", "openvino"))
"""CPU backends of the toolkit, with the provider that selects them."""


class UnavailableError(EngineError):
    """An implementation that cannot run on this machine."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """A generator in eval mode, and the toolkit's engines of it by precision."""

    name: str
    generator: Generator
    weights: str
    """Origin of the weights."""
    engines: dict[Precision, Path]


@dataclass(frozen=True, kw_only=True)
class Implementation:
    """One way to run a network: a baseline or an engine of the toolkit."""

    name: str
    network: str
    role: Role
    precision: Literal["float", "reduced", "int8"]
    backend: Backend
    make: Callable[[], Restorer]
    """Builds it; raises UnavailableError, or an error of a library, if it cannot run."""
    budget_db: float | None = None
    """PSNR in dB that it may lose; None if its output has to be that of PyTorch."""

    @property
    def label(self) -> str:
        return f"{self.network}, {self.name}"


def list_baselines(network: Network, *, size: Size, threads: int) -> list[Implementation]:
    """List the CPU baselines: PyTorch in three ways, and the plain ONNX export on ONNX Runtime and OpenVINO.

    Each includes the few lines of PyTorch or NumPy that a user writes before and after the network.
    """
    generator = network.generator
    export = cache(lambda: export_plain(generator, size=size))

    def baseline(
        name: str, backend: Backend, make: Callable[[], Restorer], budget_db: float | None = None
    ) -> Implementation:
        return Implementation(
            name=name,
            network=network.name,
            role="peer",
            precision="float" if budget_db is None else "reduced",
            backend=backend,
            make=make,
            budget_db=budget_db,
        )

    return [
        baseline("torch eager", "torch", lambda: make_eager(generator)),
        baseline("torch eager, channels_last", "torch", lambda: make_channels_last(generator)),
        baseline("torch.compile", "torch", lambda: make_compiled(generator)),
        baseline("plain export, ONNX Runtime", "ONNX Runtime", lambda: make_onnxruntime(generator, export(), threads)),
        baseline(
            "plain export, OpenVINO in float32",
            "OpenVINO",
            lambda: make_openvino(generator, export(), threads, INFERENCE_PRECISION_HINT="f32"),
        ),
        baseline(
            "plain export, OpenVINO's defaults",  # bfloat16, if the CPU supports it
            "OpenVINO",
            lambda: make_openvino(generator, export(), threads),
            REDUCED_DB,
        ),
    ]


def list_toolkit_engines(network: Network, *, threads: int) -> list[Implementation]:
    """List the toolkit's engines of a network on both CPU backends."""

    def make_restorer(path: Path, provider: str) -> Callable[[], Restorer]:
        return lambda: open_named_engine(f"{path}@{provider}", threads=threads).infer

    return [
        Implementation(
            name=f"{precision}, {backend}",
            network=network.name,
            role="toolkit",
            precision="float" if precision == "fp32" else "int8",
            backend=backend,
            make=make_restorer(path, provider),
            budget_db=None if precision == "fp32" else inspect(path).budget_db or 0.0,
        )
        for precision, path in network.engines.items()
        for backend, provider in CPU_BACKENDS
    ]


def make_eager(generator: Generator) -> Restorer:
    """Run a generator in PyTorch eager mode: the output that all implementations are compared with."""
    return _wrap_with_torch(generator, generator, torch.contiguous_format)


def make_channels_last(generator: Generator) -> Restorer:
    """Run a copy of a generator in eager mode with the channels_last memory format."""
    return _wrap_with_torch(_copy_channels_last(generator), generator, torch.channels_last)


def make_compiled(generator: Generator) -> Restorer:
    """Run a generator through torch.compile with its default backend, inductor, which needs a C++ compiler."""
    return _wrap_with_torch(torch.compile(_copy_channels_last(generator)), generator, torch.channels_last)


def export_plain(generator: Generator, *, size: Size) -> bytes:
    """Export a generator with `torch.onnx.export` for one frame size, as the documentation of PyTorch shows it.

    `size`: width and height; the export has them rounded up to the multiple that the generator needs.
    """
    step = generator.multiple_of
    width, height = (-(-side // step) * step for side in size)
    # The exporter warns of every missing torchvision operator; no generator uses one.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(generator, (torch.zeros(1, 3, height, width),), dynamo=True, verbose=False)
    assert program is not None
    buffer = io.BytesIO()
    program.save(buffer)  # type: ignore[arg-type] # it also takes a buffer
    return buffer.getvalue()


def make_onnxruntime(
    generator: Generator, model: bytes, threads: int, *, provider: str = "CPUExecutionProvider"
) -> Restorer:
    """Run a plain export in ONNX Runtime; raise UnavailableError if the execution provider does not start."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise UnavailableError(f"ONNX Runtime could not start {provider}", hint="install the libraries it needs")
    name = session.get_inputs()[0].name
    return wrap_with_numpy(generator, lambda values: session.run(None, {name: values})[0])


def make_openvino(generator: Generator, model: bytes, threads: int, **settings: str) -> Restorer:
    """Run a plain export in OpenVINO with additional settings; raise UnavailableError if it is not installed."""
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise UnavailableError("OpenVINO is not installed", hint="pip install openvino") from error
    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        path.write_bytes(model)
        graph = core.read_model(path)
        all_settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **settings}
        request = core.compile_model(graph, "CPU", all_settings).create_infer_request()
    return wrap_with_numpy(generator, lambda values: request.infer([values], share_inputs=True)[0])


def frames_to_nchw(frames: Pixels, generator: Generator) -> NDArray[np.float32]:
    """Convert uint8[N, H, W, 3] BGR to float32[N, 3, H, W] in the channel order and range of the generator.

    Height and width are padded to the multiple that it needs.
    """
    low, high = generator.pixel_range
    if generator.channel_order == "RGB":
        frames = frames[..., ::-1]
    values = np.ascontiguousarray(frames.transpose(0, 3, 1, 2)).astype(np.float32)
    padding = [(0, -side % generator.multiple_of) for side in values.shape[2:]]
    scaled = values * np.float32((high - low) / 255) + np.float32(low)
    return np.pad(scaled, [(0, 0), (0, 0), *padding], mode="edge") if any(map(any, padding)) else scaled


def nchw_to_frames(output: NDArray[np.float32], generator: Generator, frames: Pixels) -> Pixels:
    """Invert `frames_to_nchw`: clip, round, and crop to the size of `frames`."""
    low, high = generator.pixel_range
    height, width = frames.shape[1:3]
    codes = (output[:, :, :height, :width] - np.float32(low)) * np.float32(255 / (high - low))
    restored = np.rint(np.clip(codes, 0, 255)).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(restored[..., ::-1] if generator.channel_order == "RGB" else restored)


def wrap_with_numpy(generator: Generator, run: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Restorer:
    """Return a restorer that converts frames with NumPy before and after `run`, which maps NCHW to NCHW."""
    return lambda frames: nchw_to_frames(run(frames_to_nchw(frames, generator)), generator, frames)


def _wrap_with_torch(
    network: nn.Module | Callable[..., Any], generator: Generator, layout: torch.memory_format
) -> Restorer:
    def restore(frames: Pixels) -> Pixels:
        with torch.inference_mode():
            before = nchw_from_frames(torch.from_numpy(frames), generator).contiguous(memory_format=layout)
            after: Tensor = restore_nchw(network, before, generator)  # type: ignore[arg-type]
            codes = after.mul(255).clamp(0, 255).round().to(torch.uint8)
            restored = codes.flip(1) if generator.channel_order == "RGB" else codes
            return restored.permute(0, 2, 3, 1).contiguous().numpy()

    return restore


def _copy_channels_last(generator: Generator) -> Generator:
    """Copy a generator, because the memory format is a property of its weights."""
    return copy.deepcopy(generator).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
