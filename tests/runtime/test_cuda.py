"""The implementations with PyCUDA and cuda-bindings, tested with stand-ins for the two packages.

Names, argument orders and results are those of cuda-bindings 13.5 and PyCUDA 2026.1. A real GPU is tested in
tests/runtime/test_gpu.py.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from runtime.engines import cuda_drivers as module
from runtime.engines.cuda import Cuda, Device
from runtime.engines.cuda_drivers import CudaBindings, PyCuda
from runtime.errors import EngineError, OutOfMemoryError


class Status(int):
    """A CUresult: a number with a name."""

    name = "CUDA_ERROR_UNKNOWN"


class BindingsDriver:
    """Stand-in for `cuda.bindings.driver` in host memory: work runs when it is queued, unless a stream captures it."""

    CUstreamCaptureMode = SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL=1)
    CU_MEMHOSTALLOC_DEVICEMAP = 2

    def __init__(self, *, memory_bytes: int = 1 << 20) -> None:
        self.memory: dict[int, Any] = {}
        self.pushed = self.retained = 0
        self.capturing: list[Any] | None = None
        self.graphs = 0
        self.memory_bytes = memory_bytes
        self.broken = False
        self.events: dict[int, int] = {}
        """Time of each existing event in milliseconds; every recording takes one millisecond."""
        self.now = 0

    def _allocate(self, size: int) -> tuple[Any, ...]:
        if sum(len(block) for block in self.memory.values()) + size > self.memory_bytes:
            return Status(2), None
        block = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(block)] = block
        return Status(0), ctypes.addressof(block)

    def _free(self, address: int) -> tuple[Any]:
        del self.memory[int(address)]
        return (Status(0),)

    def cuDevicePrimaryCtxRetain(self, device: int) -> tuple[Any, ...]:
        self.retained += 1
        return Status(0), "context"

    def cuDevicePrimaryCtxRelease(self, device: int) -> tuple[Any]:
        self.retained -= 1
        return (Status(0),)

    def cuCtxPushCurrent(self, context: str) -> tuple[Any]:
        assert context == "context"
        self.pushed += 1
        return (Status(0),)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:
        self.pushed -= 1
        return Status(0), "context"

    def cuMemAlloc(self, size: int) -> tuple[Any, ...]:
        return self._allocate(size)

    def cuMemFree(self, address: int) -> tuple[Any]:
        return self._free(address)

    def cuMemHostAlloc(self, size: int, flags: int) -> tuple[Any, ...]:
        assert flags in {0, self.CU_MEMHOSTALLOC_DEVICEMAP}
        return self._allocate(size)

    def cuMemFreeHost(self, address: int) -> tuple[Any]:
        return self._free(address)

    def cuMemHostGetDevicePointer(self, address: int, flags: int) -> tuple[Any, ...]:
        return Status(0), address

    def cuStreamCreate(self, flags: int) -> tuple[Any, ...]:
        assert flags == 1
        return Status(0), 11

    def cuStreamDestroy(self, stream: int) -> tuple[Any]:
        return (Status(0),)

    def _copy(self, to: int, source: int, size: int, stream: int) -> tuple[Any]:
        assert stream == 11
        work = (to, source, size)
        if self.capturing is None:
            ctypes.memmove(*work)
        else:
            self.capturing.append(work)
        return (Status(0),)

    cuMemcpyHtoDAsync = cuMemcpyDtoHAsync = _copy

    def cuStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any]:
        self.capturing = []
        return (Status(0),)

    def cuStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        self.captured, self.capturing = self.capturing, None
        self.graphs += 1
        return Status(0), 22

    def cuGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:
        assert (graph, flags) == (22, 0)
        self.graphs += 1
        return Status(0), 33

    def cuGraphDestroy(self, graph: int) -> tuple[Any]:
        assert graph == 22
        self.graphs -= 1
        return (Status(0),)

    def cuGraphExecDestroy(self, graph: int) -> tuple[Any]:
        assert graph == 33
        self.graphs -= 1
        return (Status(0),)

    def cuGraphLaunch(self, graph: int, stream: int) -> tuple[Any]:
        assert (graph, stream) == (33, 11)
        for work in self.captured:
            ctypes.memmove(*work)
        return (Status(0),)

    def cuEventCreate(self, flags: int) -> tuple[Any, ...]:
        assert flags in {0, 1 | 2}
        self.events[44 + len(self.events)] = 0
        return Status(0), max(self.events)

    def cuEventRecord(self, event: int, stream: int) -> tuple[Any]:
        assert stream == 11
        self.now += 1
        self.events[event] = self.now
        return (Status(0),)

    def cuEventSynchronize(self, event: int) -> tuple[Any]:
        return (Status(999 if self.broken else 0),)

    def cuEventElapsedTime(self, began: int, ended: int) -> tuple[Any, ...]:
        return Status(0), self.events[ended] - self.events[began]

    def cuEventDestroy(self, event: int) -> tuple[Any]:
        del self.events[event]
        return (Status(0),)


class PyCudaDriver:
    """Stand-in for `pycuda.driver`, which uses the one for cuda-bindings."""

    class Error(Exception): ...

    class MemoryError(Error): ...

    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)

    def __init__(self, bindings: BindingsDriver) -> None:
        self.bindings = bindings
        outer = self

        class Context:
            def push(self) -> None:
                bindings.cuCtxPushCurrent("context")

            @staticmethod
            def pop() -> None:
                bindings.cuCtxPopCurrent()

        class Stream:
            handle = 11

            def __init__(self, flags: int = 0) -> None:
                assert flags == 1

        class Event:
            def __init__(self, flags: int = 0) -> None:
                assert flags in {0, 1 | 2}

            def record(self, stream: Stream) -> None:
                bindings.now += 1
                self.at = bindings.now

            def synchronize(self) -> None:
                if bindings.broken:
                    raise outer.Error("unspecified launch failure")

            def time_till(self, other: Event) -> float:
                return other.at - self.at

        self.Context, self.Stream, self.Event = Context, Stream, Event

    def init(self) -> None: ...

    def Device(self, index: int) -> Any:
        return SimpleNamespace(retain_primary_context=self.Context)

    def _take(self, size: int) -> int:
        status, address = self.bindings._allocate(size)
        if status:
            raise self.MemoryError("out of memory")
        return address

    def pagelocked_empty(self, shape: int, dtype: type, mem_flags: int = 0) -> Any:
        address = self._take(shape)
        base = SimpleNamespace(free=lambda: self.bindings._free(address), get_device_pointer=lambda: address)
        array = np.ctypeslib.as_array((ctypes.c_uint8 * shape).from_address(address)).view(WithBase)
        array.allocation = base
        return array

    def mem_alloc(self, size: int) -> Any:
        address = self._take(size)

        class Allocation(int):
            def free(self_) -> None:  # noqa: N805
                self.bindings._free(address)

        return Allocation(address)

    def memcpy_htod_async(self, to: int, source: np.ndarray, stream: Any) -> None:
        self.bindings._copy(to, source.ctypes.data, source.size, stream.handle)

    def memcpy_dtoh_async(self, to: np.ndarray, source: int, stream: Any) -> None:
        self.bindings._copy(to.ctypes.data, source, to.size, stream.handle)


class WithBase(np.ndarray):
    """Array whose `base` is its allocation, as PyCUDA's arrays have it."""

    @property
    def base(self) -> Any:
        return self.allocation


def device(*, integrated: bool) -> Device:
    return Device("stand-in", "8.7", integrated=integrated, driver="12.6")


@pytest.fixture(params=["bindings", "pycuda"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def open_with_stand_in(
    kind: str, monkeypatch: pytest.MonkeyPatch, *, integrated: bool = False, memory_bytes: int = 1 << 20
) -> tuple[Cuda, BindingsDriver]:
    driver = BindingsDriver(memory_bytes=memory_bytes)
    modules = {"cuda.bindings.driver": driver, "pycuda.driver": PyCudaDriver(driver)}
    if kind == "bindings":
        del modules["pycuda.driver"]

    def import_module(name: str) -> Any:
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    monkeypatch.setattr(module, "importlib", SimpleNamespace(import_module=import_module))
    monkeypatch.setattr(module, "probe", lambda index: device(integrated=integrated))
    cuda = module.open_cuda()
    assert isinstance(cuda, PyCuda if kind == "pycuda" else CudaBindings)
    return cuda, driver


@pytest.mark.parametrize("integrated", [False, True])
def test_upload_and_download(kind: str, integrated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, driver = open_with_stand_in(kind, monkeypatch, integrated=integrated)
    with cuda.active():
        assert driver.pushed == 1
        buffer, stream = cuda.allocate(64), cuda.create_stream()
        buffer.host[:] = 7
        cuda.upload(buffer, 64, stream)
        on_device = (ctypes.c_uint8 * 64).from_address(buffer.device)
        assert bytes(on_device) == bytes([7] * 64)
        ctypes.memset(on_device, 9, 32)
        cuda.download(buffer, 32, stream)
        cuda.wait(stream)
        assert bytes(buffer.host) == bytes([9] * 32 + [7] * 32)
        assert len(driver.memory) == (1 if integrated else 2)
        buffer.free()
        cuda.destroy_stream(stream)
    cuda.close()
    assert (driver.pushed, driver.retained, driver.memory) == (0, 0, {})


def test_graph_runs_the_captured_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, driver = open_with_stand_in(kind, monkeypatch)
    with cuda.active():
        buffer, stream = cuda.allocate(8), cuda.create_stream()
        graph = cuda.capture(stream, lambda: cuda.upload(buffer, 8, stream))
        buffer.host[:] = 5
        assert bytes((ctypes.c_uint8 * 8).from_address(buffer.device)) == bytes(8)
        cuda.launch(graph, stream)
        assert bytes((ctypes.c_uint8 * 8).from_address(buffer.device)) == bytes([5] * 8)
        cuda.destroy_graph(graph)
    assert driver.graphs == 0


def test_elapsed_time_is_from_the_clock_of_the_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, driver = open_with_stand_in(kind, monkeypatch)
    with cuda.active():
        stream = cuda.create_stream()

        def work() -> None:
            driver.now += 6

        assert cuda.elapsed_ms(stream, work) == pytest.approx(7)
    driver.broken = True
    with pytest.raises(EngineError, match="the GPU failed"), cuda.active():
        cuda.elapsed_ms(stream, work)
    with cuda.active():
        cuda.destroy_stream(stream)
    assert driver.events == {}


def test_elapsed_time_with_a_driver_older_than_cuda_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, driver = open_with_stand_in("bindings", monkeypatch)

    def fail(*_: int) -> None:
        raise RuntimeError('Function "cuEventElapsedTime_v2" not found')

    def measure(time_ms: Any, start: ctypes.c_void_p, end: ctypes.c_void_p) -> int:
        time_ms._obj.value = driver.events[end.value] - driver.events[start.value]
        return status

    driver.cuEventElapsedTime = fail
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: SimpleNamespace(cuEventElapsedTime=measure))
    with cuda.active():
        stream, status = cuda.create_stream(), 0
        assert cuda.elapsed_ms(stream, lambda: None) == 1
        status = 600
        with pytest.raises(EngineError, match=r"the GPU failed \(error 600\)"):
            cuda.elapsed_ms(stream, lambda: None)


def test_the_event_of_a_wait_is_recorded_behind_the_work(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, driver = open_with_stand_in(kind, monkeypatch)
    with cuda.active():
        stream = cuda.create_stream()
        for count in (1, 2):
            cuda.wait(stream)
            assert driver.now == count


@pytest.mark.parametrize("error", [EngineError("not capturable", hint=""), RuntimeError("error of another library")])
def test_failed_capture_releases_its_graph(kind: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, driver = open_with_stand_in(kind, monkeypatch)

    def fail() -> None:
        raise error

    with cuda.active():
        assert cuda.capture(cuda.create_stream(), fail) is None
    assert driver.graphs == 0


def test_out_of_memory_and_a_broken_gpu(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, driver = open_with_stand_in(kind, monkeypatch, memory_bytes=150)
    with pytest.raises(OutOfMemoryError), cuda.active():
        cuda.allocate(100)  # the host part fits, the device part does not
    assert driver.pushed == 0
    if kind == "bindings":
        assert driver.memory == {}
    driver.broken = True
    with pytest.raises(EngineError, match="the GPU failed"), cuda.active():
        cuda.wait(cuda.create_stream())
    with suppress(EngineError):
        cuda.close()


def test_neither_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(module, "importlib", SimpleNamespace(import_module=missing))
    monkeypatch.setattr(module, "probe", lambda index: device(integrated=False))
    with pytest.raises(EngineError, match="neither PyCUDA nor cuda-bindings is installed"):
        module.open_cuda()
