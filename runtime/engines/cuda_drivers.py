"""The interface of `runtime/engines/cuda.py`, implemented with PyCUDA and with NVIDIA's cuda-bindings.

PyCUDA is used if it is installed, cuda-bindings otherwise. CUDA graphs always need cuda-bindings: PyCUDA has none.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from runtime.engines.cuda import Buffer, Cuda, Device, probe
from runtime.errors import EngineError, OutOfMemoryError
from runtime.libraries import install_hint

_OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY of the driver's cuda.h."""
_NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING: work that others queue on the default stream does not disturb a capture."""
_EVENT_DEFAULT = 0
"""CU_EVENT_DEFAULT: an event that records the time."""
_EVENT_BLOCKING = 1 | 2
"""CU_EVENT_BLOCKING_SYNC and CU_EVENT_DISABLE_TIMING: a thread that waits for the event sleeps. Without the first, a
discrete GPU makes it ask all the time, which takes a core from decoder and encoder."""


def open_cuda(index: int = 0) -> Cuda:
    """Open the GPU with this index; raises EngineError if there is no such GPU, or neither of the two packages."""
    device = probe(index)
    for implementation, module in ((PyCuda, "pycuda.driver"), (CudaBindings, "cuda.bindings.driver")):
        try:
            driver = importlib.import_module(module)
        except ImportError:
            continue
        return implementation(driver, device, index)
    raise EngineError("neither PyCUDA nor cuda-bindings is installed", hint=install_hint("cuda"))


class PyCuda:
    """A GPU through PyCUDA, in the primary context, which TensorRT and ONNX Runtime use as well."""

    def __init__(self, driver: Any, device: Device, index: int) -> None:
        self.device = device
        self._driver = driver
        driver.init()
        self._context = driver.Device(index).retain_primary_context()
        self._streams: dict[int, Any] = {}
        self._ends: dict[int, Any] = {}
        """Event of each stream, recorded behind its work to wait for it."""
        self._graphs = _Graphs.create_if_installed()

    @contextmanager
    def active(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        except self._driver.MemoryError as error:
            raise _out_of_memory(0) from error
        except self._driver.Error as error:
            raise EngineError(f"the GPU failed ({error})", hint="read dmesg, and start again") from error
        finally:
            self._driver.Context.pop()

    def allocate(self, size: int) -> Buffer:
        return _PyCudaBuffer(self._driver, size, mapped=self.device.integrated)

    def create_stream(self) -> int:
        end, stream = self._driver.Event(_EVENT_BLOCKING), self._driver.Stream(_NON_BLOCKING)
        self._streams[stream.handle], self._ends[stream.handle] = stream, end
        return int(stream.handle)

    def upload(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            self._driver.memcpy_htod_async(buffer.device, buffer.host[:size], self._streams[stream])

    def download(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            self._driver.memcpy_dtoh_async(buffer.host[:size], buffer.device, self._streams[stream])

    def wait(self, stream: int) -> None:
        self._ends[stream].record(self._streams[stream])
        self._ends[stream].synchronize()

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        return self._graphs.capture(stream, work) if self._graphs else None

    def launch(self, graph: Any, stream: int) -> None:
        assert self._graphs
        self._graphs.launch(graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        assert self._graphs
        self._graphs.destroy(graph)

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        start, end = self._driver.Event(), self._driver.Event()
        start.record(self._streams[stream])
        work()
        end.record(self._streams[stream])
        end.synchronize()
        return float(start.time_till(end))

    def destroy_stream(self, stream: int) -> None:
        del self._streams[stream], self._ends[stream]  # PyCUDA destroys what has no object any more

    def close(self) -> None:
        """Do nothing: the process owns the primary context, and PyCUDA's call to release it leaves it current."""


class _PyCudaBuffer:
    def __init__(self, driver: Any, size: int, *, mapped: bool) -> None:
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        self.host = driver.pagelocked_empty(size, np.uint8, mem_flags=flags)
        self._memory = None if mapped else driver.mem_alloc(size)
        self.device = int(self.host.base.get_device_pointer() if self._memory is None else self._memory)

    def free(self) -> None:
        if self._memory is not None:
            self._memory.free()
        self.host.base.free()


class CudaBindings:
    """A GPU through NVIDIA's cuda-bindings, in the primary context."""

    def __init__(self, driver: Any, device: Device, index: int) -> None:
        self.device = device
        self._driver, self._index = driver, index
        self._context = _check(driver.cuDevicePrimaryCtxRetain(index))
        self._ends: dict[int, Any] = {}
        """Event of each stream, recorded behind its work to wait for it."""
        self._graphs = _Graphs(driver)

    @contextmanager
    def active(self) -> Iterator[None]:
        _check(self._driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            _check(self._driver.cuCtxPopCurrent())

    def allocate(self, size: int) -> Buffer:
        return _BindingsBuffer(self._driver, size, mapped=self.device.integrated)

    def create_stream(self) -> int:
        end = _check(self._driver.cuEventCreate(_EVENT_BLOCKING))
        stream = int(_check(self._driver.cuStreamCreate(_NON_BLOCKING)))
        self._ends[stream] = end
        return stream

    def upload(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            _check(self._driver.cuMemcpyHtoDAsync(buffer.device, buffer.host.ctypes.data, size, stream))

    def download(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            _check(self._driver.cuMemcpyDtoHAsync(buffer.host.ctypes.data, buffer.device, size, stream))

    def wait(self, stream: int) -> None:
        _check(self._driver.cuEventRecord(self._ends[stream], stream))
        _check(self._driver.cuEventSynchronize(self._ends[stream]))

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        return self._graphs.capture(stream, work)

    def launch(self, graph: Any, stream: int) -> None:
        self._graphs.launch(graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._graphs.destroy(graph)

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        driver, events = self._driver, []
        try:
            for step in (None, work):
                if step:
                    step()
                events.append(_check(driver.cuEventCreate(_EVENT_DEFAULT)))
                _check(driver.cuEventRecord(events[-1], stream))
            _check(driver.cuEventSynchronize(events[-1]))
            return _elapsed_ms(driver, *events)
        finally:
            for event in events:
                driver.cuEventDestroy(event)

    def destroy_stream(self, stream: int) -> None:
        self._driver.cuEventDestroy(self._ends.pop(stream))
        _check(self._driver.cuStreamDestroy(stream))

    def close(self) -> None:
        _check(self._driver.cuDevicePrimaryCtxRelease(self._index))


class _BindingsBuffer:
    def __init__(self, driver: Any, size: int, *, mapped: bool) -> None:
        self._driver, self._mapped = driver, mapped
        flags = driver.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0
        self._pointer = int(_check(driver.cuMemHostAlloc(size, flags), size=size))
        self.host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._pointer))
        try:
            result = driver.cuMemHostGetDevicePointer(self._pointer, 0) if mapped else driver.cuMemAlloc(size)
            self.device = int(_check(result, size=size))
        except Exception:
            driver.cuMemFreeHost(self._pointer)
            raise

    def free(self) -> None:
        if not self._mapped:
            _check(self._driver.cuMemFree(self.device))
        _check(self._driver.cuMemFreeHost(self._pointer))


class _Graphs:
    """CUDA graphs: work that is captured once and then queued in one call."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @classmethod
    def create_if_installed(cls) -> _Graphs | None:
        """Return None if cuda-bindings is not installed."""
        try:
            return cls(importlib.import_module("cuda.bindings.driver"))
        except ImportError:
            return None

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _check(driver.cuStreamBeginCapture(stream, mode))
        failed = False
        try:
            work()
        except Exception:  # noqa: BLE001 - the caller runs without a graph
            failed = True
        finally:
            status, graph = driver.cuStreamEndCapture(stream)
        executable = None
        if not failed and not int(status):
            status, executable = driver.cuGraphInstantiate(graph, 0)
        if graph is not None and int(graph):
            driver.cuGraphDestroy(graph)
        return None if int(status) else executable

    def launch(self, graph: Any, stream: int) -> None:
        _check(self._driver.cuGraphLaunch(graph, stream))

    def destroy(self, graph: Any) -> None:
        _check(self._driver.cuGraphExecDestroy(graph))


def _elapsed_ms(driver: Any, start: Any, end: Any) -> float:
    """Return the milliseconds between two events that have occurred."""
    try:
        return float(_check(driver.cuEventElapsedTime(start, end)))
    except RuntimeError:  # cuda-bindings 13 calls cuEventElapsedTime_v2, which drivers before CUDA 12.8 lack
        time_ms = ctypes.c_float()
        handles = (ctypes.c_void_p(int(event)) for event in (start, end))
        _check((_Status(ctypes.CDLL("libcuda.so.1").cuEventElapsedTime(ctypes.byref(time_ms), *handles)),))
        return time_ms.value


class _Status(int):
    """A CUresult that the driver itself returned: a number without a name."""

    @property
    def name(self) -> str:
        return f"error {int(self)}"


def _check(result: tuple[Any, ...], *, size: int = 0) -> Any:
    """Return the value of a call of cuda-bindings; raises the error of its status.

    `size`: bytes that the call allocates, for the message.
    """
    status, *rest = result
    if int(status) == _OUT_OF_MEMORY:
        raise _out_of_memory(size)
    if int(status):
        raise EngineError(f"the GPU failed ({status.name})", hint="read dmesg, and start again")
    return rest[0] if rest else None


def _out_of_memory(size: int) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"not enough GPU memory for {size >> 20} MiB more", hint="use smaller frames, tiles, or mode latency"
    )
