"""List of all engine backends, for the conformance suite. A new backend adds one line to `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from runtime.engines.base import Engine, Mode
from runtime.engines.onnx import HostRunner, OnnxEngine
from runtime.engines.onnx_binding import BoundRunner, Frames, OrtFrames, PinnedFrames, Shape
from runtime.engines.openvino import OpenVinoEngine
from runtime.engines.parallel import ParallelEngine
from runtime.engines.shared import SharedEngine
from runtime.engines.tensorrt import TensorRtEngine
from runtime.engines.tiled import TiledEngine
from runtime.engines.triton import TritonEngine
from runtime.engines.watched import WatchedEngine
from runtime.sidecar import Flavour
from tests.standin import HostCuda, install_stand_in, write_plan


@dataclass(frozen=True)
class Resources:
    """Means of a test to open engines; `cleanup` runs at the end of the test."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    cleanup: ExitStack

    def open(self, open_backend: OpenBackend, onnx: Path) -> Engine:
        """Open an engine and close it at the end of the test."""
        engine = open_backend(onnx, self)
        self.cleanup.callback(engine.close)
        return engine


OpenBackend = Callable[[Path, Resources], Engine]
"""Function that opens the engine of an ONNX file in one backend."""


def open_bound(onnx: Path, _: Resources) -> Engine:
    """Open ONNX Runtime with IO binding, as on a GPU, but in the memory of the CPU."""
    return bind(OnnxEngine(onnx), lambda shape: OrtFrames(shape, "cpu"))


def open_pinned(onnx: Path, resources: Resources, *, integrated: bool) -> Engine:
    """Open ONNX Runtime on frames of a stand-in for CUDA, whose device is the memory of the CPU."""
    cuda = HostCuda(integrated=integrated)
    with cuda.active():
        stream = cuda.create_stream()
    resources.cleanup.callback(release, cuda, stream)
    return bind(OnnxEngine(onnx), lambda shape: PinnedFrames(shape, cuda, stream, device="cpu"))


def bind(engine: OnnxEngine, allocate: Callable[[Shape], Frames]) -> OnnxEngine:
    assert isinstance(engine._runner, HostRunner)
    engine._runner = BoundRunner(engine._runner._session, allocate, with_graphs=True)
    return engine


def release(cuda: HostCuda, stream: int) -> None:
    with cuda.active():
        cuda.destroy_stream(stream)
    cuda.close()  # fails if frames were not released


def open_plan(
    onnx: Path, resources: Resources, *, flavour: Flavour = "tensorrt-rtx", mode: Mode = "latency", **cuda: bool
) -> Engine:
    """Open a plan with stand-ins for TensorRT and the GPU, which compute with ONNX Runtime."""
    install_stand_in(resources.monkeypatch, lambda: HostCuda(**cuda))
    return TensorRtEngine(write_plan(onnx, resources.folder, flavour=flavour), mode=mode)


def open_client(onnx: Path, resources: Resources) -> Engine:
    engine = ParallelEngine(onnx, threads=2)
    resources.cleanup.callback(engine.close)
    return SharedEngine(engine).create_client()


def open_watched(onnx: Path, _: Resources) -> Engine:
    return WatchedEngine(onnx, lambda: ParallelEngine(onnx, threads=2), say=lambda _: None)


def open_triton(onnx: Path, resources: Resources) -> Engine:
    """Open a model on a small KServe server in this process."""
    pytest.importorskip("tritonclient.grpc")
    from export.triton import main
    from tests.rig.kserve import serving

    repository = resources.folder / f"repository_{onnx.stem}"
    assert main([str(onnx), "--out", str(repository)]) == 0
    address, _ = resources.cleanup.enter_context(serving(repository))
    return TritonEngine(Path(f"triton://{address}/{onnx.stem}"))


BACKENDS: list[tuple[str, OpenBackend]] = [
    ("onnxruntime-cpu", lambda onnx, _: OnnxEngine(onnx)),
    ("onnxruntime-io-binding", open_bound),
    ("onnxruntime-page-locked", partial(open_pinned, integrated=False)),
    ("onnxruntime-page-locked-integrated", partial(open_pinned, integrated=True)),
    ("onnxruntime-parallel", lambda onnx, _: ParallelEngine(onnx, threads=2)),
    ("openvino", lambda onnx, _: OpenVinoEngine(onnx)),
    ("openvino-throughput", lambda onnx, _: OpenVinoEngine(onnx, threads=2, mode="throughput")),
    ("tensorrt", partial(open_plan, flavour="tensorrt")),
    ("tensorrt-rtx", open_plan),
    ("tensorrt-rtx-throughput", partial(open_plan, mode="throughput")),
    ("tensorrt-rtx-integrated", partial(open_plan, integrated=True)),
    ("tensorrt-rtx-no-graphs", partial(open_plan, graphs=False)),
    ("triton", open_triton),
    ("tiled", lambda onnx, _: TiledEngine(ParallelEngine(onnx, threads=2))),
    ("shared-client", open_client),
    ("watched", open_watched),
]
