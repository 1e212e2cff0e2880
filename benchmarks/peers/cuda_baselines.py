"""Baselines on an NVIDIA GPU: PyTorch in FP16 with a CUDA graph, ONNX Runtime, and the plan that trtexec builds.

The PyTorch baseline has run on an H200; the other two have not run yet.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.baselines import (
    REDUCED_DB,
    Implementation,
    Network,
    Restorer,
    UnavailableError,
    export_plain,
    make_onnxruntime,
    wrap_with_numpy,
)
from runtime.engines.base import first_line
from runtime.frame import Pixels, Size
from train.models import Generator, nchw_from_frames, restore_nchw


def list_cuda_baselines(network: Network, *, size: Size, threads: int) -> list[Implementation]:
    """List the GPU baselines; without a GPU, each raises UnavailableError when it is made."""
    generator = network.generator
    export = cache(lambda: export_plain(generator, size=size))

    def baseline(name: str, make: Callable[[], Restorer]) -> Implementation:
        return Implementation(
            name=name,
            network=network.name,
            role="peer",
            precision="reduced",
            backend="CUDA",
            make=lambda: _make_on_gpu(make),
            budget_db=REDUCED_DB,
        )

    return [
        baseline("torch FP16, CUDA graph", lambda: make_cuda_graph(generator, size)),
        baseline(
            "plain export, ONNX Runtime CUDA",  # TF32, if the GPU supports it
            lambda: make_onnxruntime(generator, export(), threads, provider="CUDAExecutionProvider"),
        ),
        baseline("plain export, trtexec's defaults", lambda: make_trtexec(generator, export())),
    ]


def make_cuda_graph(generator: Generator, size: Size) -> Restorer:
    """Capture the path from uint8 frame to uint8 frame on the GPU in one CUDA graph; only frames are copied."""
    network = copy.deepcopy(generator).half().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    source = torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8, device="cuda")

    def run() -> Tensor:
        before = nchw_from_frames(source, generator).half().contiguous(memory_format=torch.channels_last)
        codes = restore_nchw(network, before, generator).mul(255).clamp(0, 255).round().to(torch.uint8)
        restored = codes.flip(1) if generator.channel_order == "RGB" else codes
        return restored.permute(0, 2, 3, 1).contiguous()

    with torch.inference_mode():
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries must be initialized before the capture, on a separate stream
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            target = run()

    def restore(frames: Pixels) -> Pixels:
        with torch.inference_mode():
            source.copy_(torch.from_numpy(frames))
            graph.replay()
            result: Pixels = target.cpu().numpy()
        return result

    return restore


def make_trtexec(generator: Generator, model: bytes) -> Restorer:
    """Build a plan with trtexec and its default options, and run it through TensorRT's Python package."""
    tool = shutil.which("trtexec")
    if tool is None:
        raise UnavailableError("trtexec is not installed", hint="it is part of TensorRT")
    with tempfile.TemporaryDirectory() as folder:
        onnx, plan = Path(folder) / "plain.onnx", Path(folder) / "plain.plan"
        onnx.write_bytes(model)
        done = subprocess.run(  # noqa: S603 - a fixed command
            [tool, f"--onnx={onnx}", f"--saveEngine={plan}", "--skipInference"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(f"trtexec failed ({done.stderr.strip()[-200:]})", hint="run trtexec by hand")
        content = plan.read_bytes()
    return wrap_with_numpy(generator, _load_plan(content))


def _load_plan(plan: bytes) -> Callable[[Any], Any]:
    """Return a function that runs a plan on float32[1, 3, H, W] and returns the same shape."""
    import tensorrt  # noqa: PLC0415 - an optional package

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(2)]
    source, target = (torch.empty(tuple(engine.get_tensor_shape(name)), device="cuda") for name in names)
    for name, tensor in zip(names, (source, target), strict=True):
        context.set_tensor_address(name, tensor.data_ptr())
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(values: Any) -> Any:
        with torch.cuda.stream(stream):
            source.copy_(torch.from_numpy(values), non_blocking=True)
            context.execute_async_v3(stream.cuda_stream)
            return target.cpu().numpy()

    return run


def _make_on_gpu(make: Callable[[], Restorer]) -> Restorer:
    """Make a restorer; raise UnavailableError if PyTorch cannot use a GPU or CUDA fails."""
    if not torch.cuda.is_available():
        raise UnavailableError("no GPU that PyTorch can use", hint="run it on a machine with one")
    try:
        return make()
    except RuntimeError as error:
        raise UnavailableError(f"CUDA failed ({first_line(error)})", hint="check the driver") from error
