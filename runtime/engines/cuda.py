"""The NVIDIA driver, asked before any library that crashes without one is touched."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from runtime.errors import EngineError

_MAJOR, _MINOR, _INTEGRATED = 75, 76, 18
"""CUdevice_attribute of the driver's cuda.h."""


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
