"""What several steps of the GPU check use: frames, the builder's flavour, and engines with parts of the GPU changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.assets import DEMO_BLURRED
from runtime.colour import BT709
from runtime.engines.base import Mode
from runtime.engines.cuda_drivers import open_cuda
from runtime.engines.nvidia import import_tensorrt
from runtime.engines.tensorrt import TensorRtEngine
from runtime.errors import EngineError
from runtime.frame import Pixels, Size
from runtime.libraries import install_hint
from runtime.sidecar import Flavour
from runtime.sources import open_source
from runtime.spec import PixelFormat
from runtime.yuv420 import Yuv420

_FLAVOURS: tuple[Flavour, ...] = ("tensorrt", "tensorrt-rtx")


def detect_flavour() -> Flavour:
    """Return TensorRT if it is installed, else TensorRT-RTX; raise EngineError if neither is."""
    for flavour in _FLAVOURS:
        with contextlib.suppress(EngineError):
            import_tensorrt(flavour)
            return flavour
    raise EngineError("neither tensorrt nor tensorrt-rtx can be imported", hint=install_hint("tensorrt_rtx", "cuda"))


def read_frames(count: int, size: Size, pixels: PixelFormat = "bgr") -> list[Pixels]:
    """Return the first frames of the demo clip, each a batch of one, resized to `size` (width, height).

    `pixels`: form of the frames; for planes an odd size becomes the next smaller even one.
    """
    with contextlib.closing(open_source(str(DEMO_BLURRED))) as source:
        frames = [frame.bgr for frame in islice(source, count)]
    if pixels == "yuv420":
        size = (size[0] // 2 * 2, size[1] // 2 * 2)
    resized = [np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8) for frame in frames]
    if pixels == "yuv420":
        resized = [Yuv420.from_bgr(frame, BT709).planes for frame in resized]
    return [frame[np.newaxis] for frame in resized]


class ChangedCuda:
    """A GPU (`runtime.engines.cuda.Cuda`) with some of its calls replaced."""

    def __init__(self, cuda: Any, **calls: Callable[..., Any]) -> None:
        self._cuda = cuda
        self.__dict__ |= calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cuda, name)


def open_without_graphs(plan: Path) -> TensorRtEngine:
    """Open a plan whose work is queued anew for every frame, instead of being captured as a CUDA graph."""
    return TensorRtEngine(plan, cuda=ChangedCuda(open_cuda(), capture=lambda *_: None))


def open_with_memory(
    plan: Path, *, shared: bool, allocate: Callable[[int], Any] | None = None, mode: Mode = "latency"
) -> TensorRtEngine:
    """Open a plan whose frames are in memory that CPU and GPU share, or that is copied, whatever the GPU is.

    `allocate` replaces the allocation of buffers.
    """
    cuda: Any = open_cuda()
    cuda.device = replace(cuda.device, integrated=shared)
    return TensorRtEngine(plan, mode=mode, cuda=ChangedCuda(cuda, allocate=allocate) if allocate else cuda)
