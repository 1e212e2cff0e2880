"""`CudaBindings` with the real cuda-bindings and stub_driver.c; a script, because a process loads one driver."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import pytest

from runtime.engines import cuda, cuda_drivers
from runtime.errors import OutOfMemoryError


def check_constants(driver: Any) -> None:
    """Compare the numbers in our code with those of cuda-bindings."""
    events, attributes = driver.CUevent_flags, driver.CUdevice_attribute
    assert driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY == cuda_drivers._OUT_OF_MEMORY
    assert driver.CUstream_flags.CU_STREAM_NON_BLOCKING == cuda_drivers._NON_BLOCKING
    assert events.CU_EVENT_DEFAULT == cuda_drivers._EVENT_DEFAULT
    blocking = int(events.CU_EVENT_BLOCKING_SYNC) | int(events.CU_EVENT_DISABLE_TIMING)
    assert blocking == cuda_drivers._EVENT_BLOCKING
    assert attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == cuda._MAJOR
    assert attributes.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == cuda._MINOR
    assert attributes.CU_DEVICE_ATTRIBUTE_INTEGRATED == cuda._INTEGRATED


def use_gpu(gpu: cuda.Cuda) -> None:
    """Call everything that the engine of a plan calls."""
    with gpu.active():
        buffer, stream = gpu.allocate(64), gpu.create_stream()
        on_device = (ctypes.c_uint8 * 64).from_address(buffer.device)
        buffer.host[:] = 7
        gpu.upload(buffer, 64, stream)
        gpu.wait(stream)
        assert bytes(on_device) == bytes([7] * 64)
        graph = gpu.capture(stream, lambda: gpu.download(buffer, 64, stream))
        assert graph is not None
        ctypes.memset(on_device, 9, 64)
        gpu.launch(graph, stream)
        gpu.wait(stream)
        assert bytes(buffer.host) == bytes([9] * 64)
        expected_ms = 0 if gpu.device.integrated else 1  # every copy takes a millisecond
        assert gpu.elapsed_ms(stream, lambda: gpu.launch(graph, stream)) == expected_ms
        gpu.destroy_graph(graph)
        assert gpu.capture(stream, lambda: 1 / 0) is None
        with pytest.raises(OutOfMemoryError):
            gpu.allocate(1 << 21)
        buffer.free()
        gpu.destroy_stream(stream)
    gpu.close()
    assert ctypes.CDLL("libcuda.so.1").count_live() == 0


if __name__ == "__main__":
    bindings = importlib.import_module("cuda.bindings.driver")
    check_constants(bindings)
    device = cuda.probe()
    use_gpu(cuda_drivers.CudaBindings(bindings, device, 0))
    print(f"{bindings.__file__}, {device}")
