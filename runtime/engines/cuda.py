"""Interface to one NVIDIA GPU: its description, memory, streams and CUDA graphs.

`runtime/engines/cuda_drivers.py` implements it with PyCUDA or NVIDIA's cuda-bindings.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EngineError

_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
"""Values of CUdevice_attribute in the driver's cuda.h."""


@dataclass(frozen=True)
class Device:
    """Description of one GPU by the driver."""

    name: str
    compute_capability: str
    """Major and minor number, such as 8.7."""
    integrated: bool
    """Whether the GPU shares the memory of the CPU, as on a Jetson."""
    driver: str
    """Newest CUDA version that the driver supports, such as 13.0."""


class Buffer(Protocol):
    """Memory that CPU and GPU both have: a page-locked array on the host and an address on the device.

    On an integrated GPU both are the same memory, and copies do nothing.
    """

    host: NDArray[np.uint8]
    """Bytes on the host, uint8[size]."""
    device: int
    """Address on the device."""

    def free(self) -> None:
        """Release the memory on both sides."""
        ...


class Cuda(Protocol):
    """One GPU; every method except `close` is called inside `active`, from any thread.

    Methods raise EngineError if the GPU fails and OutOfMemoryError if its memory does not suffice.
    """

    device: Device

    def active(self) -> AbstractContextManager[None]:
        """Make the GPU current in this thread while the body runs."""
        ...

    def allocate(self, size: int) -> Buffer:
        """Allocate a buffer of `size` bytes; raises OutOfMemoryError."""
        ...

    def create_stream(self) -> int:
        """Create a stream, which is a queue of work for the GPU, and return its handle."""
        ...

    def upload(self, buffer: Buffer, size: int, stream: int) -> None:
        """Queue the copy of the first `size` bytes from the host to the device."""
        ...

    def download(self, buffer: Buffer, size: int, stream: int) -> None:
        """Queue the copy of the first `size` bytes from the device to the host."""
        ...

    def wait(self, stream: int) -> None:
        """Wait until all queued work is done; raises EngineError if some of it failed."""
        ...

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        """Return a CUDA graph of what `work` queues, without running it; None if it cannot be captured."""
        ...

    def launch(self, graph: Any, stream: int) -> None:
        """Queue all work of a graph in one call."""
        ...

    def destroy_graph(self, graph: Any) -> None:
        """Release a graph."""
        ...

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        """Run what `work` queues, wait for it, and return its time in milliseconds by the clock of the GPU."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Release a stream."""
        ...

    def close(self) -> None:
        """Release the GPU; buffers, streams and graphs must be released before."""
        ...


def probe(index: int = 0) -> Device:
    """Return the GPU with this index; raises EngineError if there is no driver or no such GPU.

    It asks the driver itself and needs no package: call it before TensorRT, whose calls end the process where no
    driver is installed.
    """
    hint = "run an .onnx engine here instead"
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError("no NVIDIA driver is installed here (libcuda.so.1)", hint=hint) from error
    version, count, device, value = (ctypes.c_int() for _ in range(4))
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value <= index:
        raise EngineError(f"the NVIDIA driver finds {count.value} GPUs, number {index} was requested", hint=hint)
    cuda.cuDriverGetVersion(ctypes.byref(version))
    cuda.cuDeviceGet(ctypes.byref(device), index)
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    attributes = []
    for attribute in (_MAJOR, _MINOR, _INTEGRATED):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        attributes.append(value.value)
    major, minor, integrated = attributes
    return Device(
        name=name.value.decode(),
        compute_capability=f"{major}.{minor}",
        integrated=bool(integrated),
        driver=f"{version.value // 1000}.{version.value % 1000 // 10}",
    )
