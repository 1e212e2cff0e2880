"""All that knows CUDA: the driver asked before libraries that crash without one, memory, streams, graphs.

PyCUDA does the work where it is installed, NVIDIA's cuda-bindings otherwise; graphs are captured
by the bindings either way, as PyCUDA has none.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from runtime.errors import EngineError, OutOfMemoryError

_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
"""CUdevice_attribute of the driver's cuda.h."""
_OUT_OF_MEMORY = 2
"""CUDA_ERROR_OUT_OF_MEMORY."""


@dataclass(frozen=True)
class Device:
    """One GPU, as the driver describes it."""

    name: str
    compute_capability: str
    """Such as 8.7."""
    integrated: bool
    """Whether it shares the CPU's memory, as on a Jetson."""
    driver: str
    """The CUDA version that the driver speaks, such as 13.0."""


class Buffer(Protocol):
    """Bytes that both sides see: page-locked on the host, and an address on the device.

    On an integrated GPU they are the same memory, and copies do nothing.
    """

    host: NDArray[np.uint8]
    device: int

    def free(self) -> None: ...


class Cuda(Protocol):
    """One device, used inside `active`, from any thread."""

    device: Device

    def active(self) -> AbstractContextManager[None]:
        """Make the device current in this thread while the body runs."""
        ...

    def buffer(self, size: int) -> Buffer:
        """Memory of so many bytes; raises OutOfMemoryError."""
        ...

    def stream(self) -> int:
        """A queue of work for the device; its handle."""
        ...

    def upload(self, buffer: Buffer, size: int, stream: int) -> None:
        """Queue the copy of the first `size` bytes to the device."""
        ...

    def download(self, buffer: Buffer, size: int, stream: int) -> None:
        """Queue the copy of the first `size` bytes to the host."""
        ...

    def wait(self, stream: int) -> None:
        """Until all that is queued is done; raises EngineError if some of it failed."""
        ...

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        """What `work` queues, as one graph; None where that is not possible."""
        ...

    def launch(self, graph: Any, stream: int) -> None:
        """Queue all of a graph at once."""
        ...

    def drop_graph(self, graph: Any) -> None: ...

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        """How long what `work` queues takes on the device, by its own clock; waits for it."""
        ...

    def drop_stream(self, stream: int) -> None: ...

    def close(self) -> None: ...


def probe(index: int = 0) -> Device:
    """The GPU of this index; raises EngineError if there is no driver or no such GPU.

    Needs no package: TensorRT's own calls end the process where no driver is installed.
    """
    hint = "run an .onnx engine here instead"
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise EngineError("no NVIDIA driver is installed here (libcuda.so.1)", hint=hint) from error
    version, count, device, value = (ctypes.c_int() for _ in range(4))
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value <= index:
        raise EngineError(f"the NVIDIA driver sees {count.value} GPUs, number {index} was wanted", hint=hint)
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


def open_cuda(index: int = 0) -> Cuda:
    """The device of this index, by PyCUDA or cuda-bindings; raises EngineError if neither is there, or no GPU."""
    device = probe(index)
    for kind, module in ((_PyCuda, "pycuda.driver"), (_Bindings, "cuda.bindings.driver")):
        try:
            driver = importlib.import_module(module)
        except ImportError:
            continue
        return kind(driver, device, index)
    raise EngineError("neither PyCUDA nor cuda-bindings is installed", hint="pip install pycuda, or cuda-bindings")


class _PyCuda:
    """By PyCUDA, on the primary context, which it shares with TensorRT and ONNX Runtime."""

    def __init__(self, driver: Any, device: Device, index: int) -> None:
        self.device = device
        self._driver = driver
        driver.init()
        self._context = driver.Device(index).retain_primary_context()
        self._streams: dict[int, Any] = {}
        self._graphs = _Graphs.where_possible()

    @contextmanager
    def active(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        except self._driver.MemoryError as error:
            raise _out_of_memory(0) from error
        except self._driver.Error as error:
            raise EngineError(f"the GPU failed ({error})", hint="see dmesg; start again") from error
        finally:
            self._driver.Context.pop()

    def buffer(self, size: int) -> Buffer:
        return _PyCudaBuffer(self._driver, size, mapped=self.device.integrated)

    def stream(self) -> int:
        stream = self._driver.Stream(1)  # CU_STREAM_NON_BLOCKING, for what others do while it captures
        self._streams[stream.handle] = stream
        return int(stream.handle)

    def upload(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            self._driver.memcpy_htod_async(buffer.device, buffer.host[:size], self._streams[stream])

    def download(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            self._driver.memcpy_dtoh_async(buffer.host[:size], buffer.device, self._streams[stream])

    def wait(self, stream: int) -> None:
        self._streams[stream].synchronize()

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        return self._graphs.capture(stream, work) if self._graphs else None

    def launch(self, graph: Any, stream: int) -> None:
        assert self._graphs
        self._graphs.launch(graph, stream)

    def drop_graph(self, graph: Any) -> None:
        assert self._graphs
        self._graphs.drop(graph)

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        began, ended = self._driver.Event(), self._driver.Event()
        began.record(self._streams[stream])
        work()
        ended.record(self._streams[stream])
        ended.synchronize()
        return float(began.time_till(ended))

    def drop_stream(self, stream: int) -> None:
        del self._streams[stream]  # which destroys it

    def close(self) -> None:
        """Nothing: the primary context is the process's, and PyCUDA's way of leaving it would keep it current."""


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


class _Bindings:
    """By NVIDIA's cuda-bindings, on the primary context."""

    def __init__(self, driver: Any, device: Device, index: int) -> None:
        self.device = device
        self._driver, self._index = driver, index
        self._context = _checked(driver.cuDevicePrimaryCtxRetain(index))
        self._graphs = _Graphs(driver)

    @contextmanager
    def active(self) -> Iterator[None]:
        _checked(self._driver.cuCtxPushCurrent(self._context))
        try:
            yield
        finally:
            _checked(self._driver.cuCtxPopCurrent())

    def buffer(self, size: int) -> Buffer:
        return _BindingsBuffer(self._driver, size, mapped=self.device.integrated)

    def stream(self) -> int:
        return int(_checked(self._driver.cuStreamCreate(1)))  # CU_STREAM_NON_BLOCKING

    def upload(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            _checked(self._driver.cuMemcpyHtoDAsync(buffer.device, buffer.host.ctypes.data, size, stream))

    def download(self, buffer: Buffer, size: int, stream: int) -> None:
        if not self.device.integrated:
            _checked(self._driver.cuMemcpyDtoHAsync(buffer.host.ctypes.data, buffer.device, size, stream))

    def wait(self, stream: int) -> None:
        _checked(self._driver.cuStreamSynchronize(stream))

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        return self._graphs.capture(stream, work)

    def launch(self, graph: Any, stream: int) -> None:
        self._graphs.launch(graph, stream)

    def drop_graph(self, graph: Any) -> None:
        self._graphs.drop(graph)

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        driver, events = self._driver, []
        try:
            for step in (None, work):
                if step:
                    step()
                events.append(_checked(driver.cuEventCreate(0)))  # CU_EVENT_DEFAULT, which keeps the time
                _checked(driver.cuEventRecord(events[-1], stream))
            _checked(driver.cuEventSynchronize(events[-1]))
            return float(_checked(driver.cuEventElapsedTime(*events)))
        finally:
            for event in events:
                driver.cuEventDestroy(event)

    def drop_stream(self, stream: int) -> None:
        _checked(self._driver.cuStreamDestroy(stream))

    def close(self) -> None:
        _checked(self._driver.cuDevicePrimaryCtxRelease(self._index))


class _BindingsBuffer:
    def __init__(self, driver: Any, size: int, *, mapped: bool) -> None:
        self._driver, self._mapped = driver, mapped
        flags = driver.CU_MEMHOSTALLOC_DEVICEMAP if mapped else 0
        self._pointer = int(_checked(driver.cuMemHostAlloc(size, flags), size=size))
        self.host = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._pointer))
        try:
            found = driver.cuMemHostGetDevicePointer(self._pointer, 0) if mapped else driver.cuMemAlloc(size)
            self.device = int(_checked(found, size=size))
        except Exception:
            driver.cuMemFreeHost(self._pointer)
            raise

    def free(self) -> None:
        if not self._mapped:
            _checked(self._driver.cuMemFree(self.device))
        _checked(self._driver.cuMemFreeHost(self._pointer))


class _Graphs:
    """Work that was queued once, queued again in one call."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    @classmethod
    def where_possible(cls) -> _Graphs | None:
        try:
            return cls(importlib.import_module("cuda.bindings.driver"))
        except ImportError:
            return None

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        driver = self._driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _checked(driver.cuStreamBeginCapture(stream, mode))
        failed = False
        try:
            work()
        except Exception:  # noqa: BLE001 - what may not be captured runs as it is
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
        _checked(self._driver.cuGraphLaunch(graph, stream))

    def drop(self, graph: Any) -> None:
        _checked(self._driver.cuGraphExecDestroy(graph))


def _checked(result: tuple[Any, ...], *, size: int = 0) -> Any:
    """What a call of cuda-bindings gave besides its status."""
    status, *rest = result
    if int(status) == _OUT_OF_MEMORY:
        raise _out_of_memory(size)
    if int(status):
        raise EngineError(f"the GPU failed ({status.name})", hint="see dmesg; start again")
    return rest[0] if rest else None


def _out_of_memory(size: int) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"not enough GPU memory for {size >> 20} MiB more", hint="use smaller frames, --tile, or --mode latency"
    )
