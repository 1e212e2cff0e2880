"""Calls of the CUDA driver that the runtime has no use for: free memory, memory for the GPU alone, managed memory.

They are called inside `Cuda.active()`.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_check.steps import CheckError

_OUT_OF_MEMORY = 2
_ATTACH_GLOBAL = 1
"""CU_MEM_ATTACH_GLOBAL: any stream may use the memory."""


@cache
def _library() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def free_bytes() -> int:
    """Return the number of bytes of GPU memory that are free."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _require(_library().cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)), "cuMemGetInfo")
    return free.value


def allocate(size: int) -> int | None:
    """Allocate bytes for the GPU alone and return their address; None if there are not so many."""
    address = ctypes.c_uint64()
    status = _library().cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
    if status == _OUT_OF_MEMORY:
        return None
    _require(status, "cuMemAlloc")
    return address.value


def release(address: int) -> None:
    """Release memory of `allocate`."""
    _require(_library().cuMemFree_v2(ctypes.c_uint64(address)), "cuMemFree")


class ManagedBuffer:
    """Memory that the driver moves between CPU and GPU by itself (`runtime.engines.cuda.Buffer`)."""

    def __init__(self, size: int) -> None:
        address = ctypes.c_uint64()
        status = _library().cuMemAllocManaged(ctypes.byref(address), ctypes.c_size_t(size), _ATTACH_GLOBAL)
        _require(status, "cuMemAllocManaged")
        self.device = address.value
        self.host: NDArray[np.uint8] = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.device))

    def free(self) -> None:
        """Release the memory."""
        release(self.device)


def _require(status: int, call: str) -> None:
    if status:
        raise CheckError(f"{call} failed with CUDA error {status}")
