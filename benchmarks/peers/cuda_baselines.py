"""What a user would run on an NVIDIA GPU instead: PyTorch in FP16 with CUDA graphs, ONNX Runtime, trtexec's plan.

PyTorch's has run on an H200; the other two have not run yet.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.baselines import (
    REDUCED_DB,
    Contender,
    Network,
    Once,
    Restorer,
    UnavailableError,
    in_numpy,
    on_onnxruntime,
    plain_export,
)
from runtime.engines.base import first_line
from runtime.frame import Pixels, Size
from train.models import Generator, planes, restored_planes


def cuda_peers(network: Network, *, size: Size, threads: int) -> list[Contender]:
    """Where there is no GPU each of them says so when it is made."""
    generator = network.generator
    exported = Once(lambda: plain_export(generator, size=size))

    def peer(name: str, make: Callable[[], Restorer], budget_db: float | None) -> Contender:
        return Contender(
            name=name,
            network=network.name,
            role="peer",
            precision="float" if budget_db is None else "reduced",
            backend="CUDA",
            make=lambda: _on_gpu(make),
            budget_db=budget_db,
        )

    return [
        peer("torch FP16, CUDA graph", lambda: graphed(generator, size), REDUCED_DB),
        peer(
            "plain export, ONNX Runtime CUDA",
            lambda: on_onnxruntime(generator, exported(), threads, provider="CUDAExecutionProvider"),
            REDUCED_DB,  # TF32, where the GPU has it
        ),
        peer("plain export, trtexec's defaults", lambda: by_trtexec(generator, exported()), REDUCED_DB),
    ]


def graphed(generator: Generator, size: Size) -> Restorer:
    """From bytes to bytes on the GPU, captured once; only frames are copied."""
    network = copy.deepcopy(generator).half().cuda().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    taken = torch.zeros(1, size[1], size[0], 3, dtype=torch.uint8, device="cuda")

    def whole() -> Tensor:
        before = planes(taken, generator).half().contiguous(memory_format=torch.channels_last)
        codes = restored_planes(network, before, generator).mul(255).clamp(0, 255).round().to(torch.uint8)
        ordered = codes.flip(1) if generator.channel_order == "RGB" else codes
        return ordered.permute(0, 2, 3, 1).contiguous()

    with torch.inference_mode():
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries are set up before the capture, on a stream of its own
            for _ in range(3):
                whole()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            given = whole()

    def restore(frames: Pixels) -> Pixels:
        with torch.inference_mode():
            taken.copy_(torch.from_numpy(frames))
            graph.replay()
            result: Pixels = given.cpu().numpy()
        return result

    return restore


def by_trtexec(generator: Generator, model: bytes) -> Restorer:
    """A plan that trtexec builds with nothing but `--onnx`, run through TensorRT's Python package."""
    tool = shutil.which("trtexec")
    if tool is None:
        raise UnavailableError("trtexec is not installed", hint="it comes with TensorRT")
    with tempfile.TemporaryDirectory() as folder:
        onnx, plan = Path(folder) / "plain.onnx", Path(folder) / "plain.plan"
        onnx.write_bytes(model)
        built = subprocess.run(  # noqa: S603 - our own
            [tool, f"--onnx={onnx}", f"--saveEngine={plan}", "--skipInference"],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode:
            raise UnavailableError(f"trtexec failed ({built.stderr.strip()[-200:]})", hint="run it by hand")
        content = plan.read_bytes()
    return in_numpy(generator, _enqueued(content))


def _enqueued(plan: bytes) -> Callable[[Any], Any]:
    """float32[1, 3, H, W] -> the same, through a plan."""
    import tensorrt  # noqa: PLC0415 - only some users have it

    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    source, target = (engine.get_tensor_name(index) for index in range(2))
    taken, given = (torch.empty(tuple(engine.get_tensor_shape(name)), device="cuda") for name in (source, target))
    context.set_tensor_address(source, taken.data_ptr())
    context.set_tensor_address(target, given.data_ptr())
    stream = torch.cuda.Stream()

    def run(values: Any) -> Any:
        with torch.cuda.stream(stream):
            taken.copy_(torch.from_numpy(values), non_blocking=True)
            context.execute_async_v3(stream.cuda_stream)
            return given.cpu().numpy()

    return run


def _on_gpu(make: Callable[[], Restorer]) -> Restorer:
    if not torch.cuda.is_available():
        raise UnavailableError("no GPU that PyTorch can use", hint="run it on a machine with one")
    try:
        return make()
    except RuntimeError as error:
        raise UnavailableError(f"CUDA failed ({first_line(error)})", hint="check the driver") from error
