"""Plans, run by TensorRT or TensorRT-RTX."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from runtime.engines.base import Mode, closed_error, require_supported_size
from runtime.engines.cuda import Cuda, Device
from runtime.engines.cuda_drivers import open_cuda
from runtime.engines.nvidia import create_logger, import_tensorrt
from runtime.engines.tensorrt_slot import TensorRtSlot
from runtime.errors import EngineError, OutOfMemoryError, UnfitPlanError
from runtime.files import partial_name
from runtime.frame import Pixels
from runtime.sidecar import Flavour, Sidecar, read_sidecar

_SLOTS: dict[Mode, int] = {"latency": 1, "throughput": 3}
"""Number of slots; with three, one batch is uploaded and one downloaded while a third is computed."""


class TensorRtEngine:
    """A plan with its sidecar, on the first GPU.

    It has one slot with `mode="latency"` and three with `mode="throughput"`, or as many of them as fit into the memory
    of the GPU. `infer` splits a batch that is larger than the plan allows; `submit` does not. Raises EngineError if the
    plan cannot be used on this machine, and its subclass UnfitPlanError if building it again helps. A plan whose
    SHA-256 differs from its sidecar is never given to TensorRT. `cuda` is an open GPU to use; the engine closes it.
    """

    def __init__(self, path: Path, *, mode: Mode = "latency", cuda: Cuda | None = None) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(f"plan cannot be read ({error.strerror})", path, hint="check the path") from error
        sidecar = read_sidecar(path, content)
        trt = import_tensorrt(sidecar.flavour)
        _require_version(path, sidecar, trt.__version__)
        try:
            self._cuda: Cuda = cuda or open_cuda()
        except EngineError as error:
            raise EngineError(error.what, path, hint=f"run {sidecar.onnx} instead, or {error.hint}") from error
        self.spec = sidecar.engine
        self.provider: Flavour = sidecar.flavour
        self._max_batch = sidecar.batch[1]
        self._name = f"{sidecar.flavour} {sidecar.version} on {self._cuda.device.name}"
        self._log = create_logger(trt)
        self._slots: list[TensorRtSlot] = []
        self._busy: deque[TensorRtSlot] = deque()
        """Slots with a submitted batch, in the order of submission."""
        self._cache: _RuntimeCache | None = None
        self._is_open = True
        self._lock = Lock()
        """Held while GPU memory is in use, because `close` may come from another thread after a run has failed."""
        try:
            _require_device(path, sidecar, self._cuda.device)
            with self._cuda.active():
                self._runtime: Any = trt.Runtime(self._log)
                if sidecar.dla_core is not None:
                    self._runtime.DLA_core = sidecar.dla_core
                self._engine: Any = self._runtime.deserialize_cuda_engine(content)
                _require_loaded(path, sidecar, self._engine, self._log)
                if sidecar.flavour == "tensorrt-rtx":
                    self._cache = _RuntimeCache(trt, self._engine, path.with_name(path.name + ".cache"))
                names = _tensor_names(trt, self._engine)
                self._slots.append(TensorRtSlot(self._cuda, self._create_context(), names, self._log))
                with suppress(OutOfMemoryError):  # fewer slots are slower, and need less memory
                    while len(self._slots) < _SLOTS[mode]:
                        self._slots.append(TensorRtSlot(self._cuda, self._create_context(), names, self._log))
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        return len(self._slots)

    @property
    def backend(self) -> str:
        graphs = ", CUDA graph" if any(slot.graph is not None for slot in self._slots) else ""
        slots = "one slot" if self.slots == 1 else f"{self.slots} slots"
        return f"{self._name}, {slots}{graphs}, {self.device_memory_bytes >> 20} MiB"

    @property
    def device_memory_bytes(self) -> int:
        """Bytes of GPU memory for the contexts' scratch space and the frames, without the weights."""
        names = ("device_memory_size_v2", "device_memory_size")  # TensorRT has the first since 10.1
        scratch: int = next((getattr(self._engine, name) for name in names if hasattr(self._engine, name)), 0)
        return len(self._slots) * scratch + sum(slot.buffer_bytes for slot in self._slots)

    def compute_ms(self, batch: Pixels, *, count: int) -> list[float]:
        """Return the milliseconds of `count` computations of a batch by the clock of the GPU, without copies."""
        self.infer(batch)  # prepares the first slot
        with self._lock:
            if not self._is_open:
                raise closed_error(self.spec)
            with self._cuda.active():
                return self._slots[0].compute_ms(count)

    def infer(self, batch: Pixels) -> Pixels:
        if self._busy:
            raise EngineError("collect what was submitted first", self.spec.name, hint="this is a bug; report it")
        try:
            return self._infer_in_parts(batch)
        except BaseException:
            while self._busy:  # the next frame needs free slots
                with suppress(Exception):
                    self.collect()
            raise

    def _infer_in_parts(self, batch: Pixels) -> Pixels:
        parts = [batch[start : start + self._max_batch] for start in range(0, len(batch), self._max_batch)]
        results = []
        for part in parts:
            if len(self._busy) == len(self._slots):
                results.append(self.collect())
            self.submit(part)
        while self._busy:
            results.append(self.collect())
        return results[0] if len(results) == 1 else np.concatenate(results)

    def submit(self, batch: Pixels) -> None:
        with self._lock:
            if not self._is_open:
                raise closed_error(self.spec)
            require_supported_size(self.spec, batch)
            with self._cuda.active():
                self._log.records.clear()
                if not self._busy and self._slots[0].shape != batch.shape:
                    self._prepare_slots(batch.shape)
                slot = next(slot for slot in self._slots if slot not in self._busy)
                slot.start(batch)
            self._busy.append(slot)

    def collect(self) -> Pixels:
        with self._lock:
            if not self._is_open:
                raise closed_error(self.spec)
            slot = self._busy.popleft()
            with self._cuda.active():
                return slot.finish()

    def close(self) -> None:
        with self._lock, ExitStack() as cleanup:
            if not self._is_open:
                return
            self._is_open = False
            cleanup.callback(self._cuda.close)
            cleanup.enter_context(self._cuda.active())
            cleanup.callback(self._release_objects)
            for slot in self._slots:
                slot.close()
            if self._cache:
                self._cache.save()

    def _prepare_slots(self, shape: tuple[int, ...]) -> None:
        """Prepare all slots, which are idle, for batches of a shape; close those for which memory does not suffice."""
        for count, idle in enumerate(self._slots):
            try:
                idle.prepare(shape)
            except OutOfMemoryError:
                if len(self._slots) == 1:
                    raise
                fitting = max(1, count)
                for slot in self._slots[fitting:]:
                    slot.close()
                del self._slots[fitting:]
                self._prepare_slots(shape)
                return

    def _release_objects(self) -> None:
        """Release the contexts, then the engine, then the runtime: TensorRT needs this order."""
        self._busy.clear()
        self._slots.clear()
        self._cache = self._engine = None
        self._runtime = None

    def _create_context(self) -> Any:
        context = self._engine.create_execution_context(*([self._cache.config] if self._cache else []))
        if context is None:
            raise OutOfMemoryError(
                f"not enough GPU memory for a context ({self._log.reason()})",
                self.spec.name,
                hint="use mode latency, or build the plan for smaller frames",
            )
        return context


class _RuntimeCache:
    """Kernels that TensorRT-RTX compiled for this GPU, stored next to the plan for a faster next start."""

    def __init__(self, trt: Any, engine: Any, path: Path) -> None:
        self._path = path
        self.config = engine.create_runtime_config()
        # EAGER compiles the kernels for a size before its first frame, instead of while later frames wait.
        self.config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = self.config.create_runtime_cache()
        self._stored = path.read_bytes() if path.exists() else b""
        if self._stored:
            self._cache.deserialize(self._stored)  # TensorRT-RTX ignores a cache of another GPU or version
        self.config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Write the cache if it has changed."""
        content = bytes(self._cache.serialize())
        if content == self._stored:
            return
        try:
            partial_name(self._path).write_bytes(content)
            partial_name(self._path).replace(self._path)
        except OSError:
            pass  # the folder may be read-only; the next start compiles again


def _require_version(path: Path, sidecar: Sidecar, version: str) -> None:
    if version != sidecar.version:
        raise UnfitPlanError(
            f"plan was built by {sidecar.flavour} {sidecar.version}, here is {version}",
            path,
            rebuild=sidecar.rebuild_arguments(path),
        )


def _require_device(path: Path, sidecar: Sidecar, device: Device) -> None:
    if device.compute_capability not in sidecar.compute_capabilities:
        raise UnfitPlanError(
            f"plan is for compute capability {', '.join(sidecar.compute_capabilities)}, "
            f"{device.name} has {device.compute_capability}",
            path,
            rebuild=sidecar.rebuild_arguments(path, compute_capability=device.compute_capability),
        )


def _require_loaded(path: Path, sidecar: Sidecar, engine: Any, log: Any) -> None:
    if engine is None and "memory" in log.reason().lower():
        raise OutOfMemoryError(
            f"not enough memory to load the plan ({log.reason()})", path, hint="close other programs that use the GPU"
        )
    if engine is None:
        what = f"{sidecar.flavour} cannot load the plan ({log.reason()})"
        raise UnfitPlanError(what, path, rebuild=sidecar.rebuild_arguments(path))


def _tensor_names(trt: Any, engine: Any) -> tuple[str, str]:
    """Return the names of the input and the output; raises EngineError if there are several, or they are not uint8."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise EngineError(f"expected one input and one output, got {names}", hint="build it from an exported engine")
    types = [engine.get_tensor_dtype(name) for name in (*inputs, *outputs)]
    if any(kind != trt.DataType.UINT8 for kind in types):
        raise EngineError(f"expected uint8 frames, got {types}", hint="build it from an exported engine")
    return inputs[0], outputs[0]
