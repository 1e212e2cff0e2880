"""Plans, run by TensorRT or TensorRT-RTX."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from runtime.engines.base import Mode, closed, require_accepted
from runtime.engines.cuda import Buffer, Cuda, Device, open_cuda
from runtime.engines.nvidia import messages, package
from runtime.errors import DeblurError, EngineError, OutOfMemoryError, UnfitPlanError
from runtime.files import partial_name
from runtime.frame import Pixels
from runtime.sidecar import Sidecar, read_sidecar

_SLOTS: dict[Mode, int] = {"latency": 1, "throughput": 3}
"""Three: copies to and from the device while a third frame is computed."""


class TensorRtEngine:
    """A plan with its sidecar, on the first GPU.

    `mode="throughput"` has three slots, so that three batches can be under way: `submit` them,
    and `collect` them in the same order. Raises EngineError, without touching the plan, if it is
    not what its sidecar says or not for this machine; UnfitPlanError where building it again helps.
    """

    def __init__(self, path: Path, *, mode: Mode = "latency") -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(f"plan cannot be read ({error.strerror})", path, hint="check the path") from error
        sidecar = read_sidecar(path, content)
        trt = package(sidecar.flavour)
        _require_version(path, sidecar, trt.__version__)
        try:
            self._cuda: Cuda = open_cuda()
        except EngineError as error:
            raise EngineError(error.what, path, hint=f"run {sidecar.onnx} instead, or {error.hint}") from error
        self.spec = sidecar.engine
        self._batch = sidecar.batch[1]
        self._name = f"{sidecar.flavour} {sidecar.version} on {self._cuda.device.name}"
        self._log = messages(trt)
        self._slots: list[_Slot] = []
        self._busy: deque[_Slot] = deque()
        self._cache: _RuntimeCache | None = None
        self._is_open = True
        self._in_use = Lock()
        """Held while memory is in use: a run that failed closes the engine from another thread."""
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
                names = _names(trt, self._engine)
                for _ in range(_SLOTS[mode]):
                    self._slots.append(_Slot(self._cuda, self._context(), names, self._log))
        except BaseException:
            self.close()
            raise

    @property
    def slots(self) -> int:
        """How many batches can be under way."""
        return len(self._slots)

    @property
    def backend(self) -> str:
        graphs = ", CUDA graph" if any(slot.graph is not None for slot in self._slots) else ""
        slots = "one slot" if self.slots == 1 else f"{self.slots} slots"
        return f"{self._name}, {slots}{graphs}, {self.device_memory_bytes >> 20} MiB"

    @property
    def device_memory_bytes(self) -> int:
        """Scratch memory of the contexts and the frames' buffers; weights not counted."""
        names = ("device_memory_size_v2", "device_memory_size")  # the first since TensorRT 10.1
        scratch: int = next((getattr(self._engine, name) for name in names if hasattr(self._engine, name)), 0)
        return len(self._slots) * scratch + sum(slot.bytes for slot in self._slots)

    def compute_ms(self, batch: Pixels, *, count: int) -> list[float]:
        """How long each of `count` runs on this batch took on the GPU by its own clock, copies left out."""
        self.infer(batch)  # prepares the first slot
        with self._in_use:
            if not self._is_open:
                raise closed(self.spec)
            with self._cuda.active():
                return self._slots[0].compute_ms(count)

    def infer(self, batch: Pixels) -> Pixels:
        if self._busy:
            raise EngineError("collect what was submitted first", self.spec.name, hint="this is a bug; report it")
        try:
            return self._in_parts(batch)
        except BaseException:
            while self._busy:  # so that the next frame finds the engine as it was
                with suppress(Exception):
                    self.collect()
            raise

    def _in_parts(self, batch: Pixels) -> Pixels:
        parts = [batch[start : start + self._batch] for start in range(0, len(batch), self._batch)]
        results = []
        for part in parts:
            if len(self._busy) == len(self._slots):
                results.append(self.collect())
            self.submit(part)
        while self._busy:
            results.append(self.collect())
        return results[0] if len(results) == 1 else np.concatenate(results)

    def submit(self, batch: Pixels) -> None:
        """Start work on uint8[N, H, W, 3] BGR, N within the plan's range; raises as `infer` does.

        At most `slots` batches may be under way.
        """
        with self._in_use:
            if not self._is_open:
                raise closed(self.spec)
            require_accepted(self.spec, batch)
            slot = next(slot for slot in self._slots if slot not in self._busy)
            with self._cuda.active():
                self._log.kept.clear()
                slot.start(batch)
            self._busy.append(slot)

    def collect(self) -> Pixels:
        """The result of the batch that was submitted first."""
        with self._in_use:
            if not self._is_open:
                raise closed(self.spec)
            slot = self._busy.popleft()
            with self._cuda.active():
                return slot.finish()

    def close(self) -> None:
        with self._in_use, ExitStack() as last:
            if not self._is_open:
                return
            self._is_open = False
            last.callback(self._cuda.close)
            last.enter_context(self._cuda.active())
            last.callback(self._forget)
            for slot in self._slots:
                slot.close()
            if self._cache:
                self._cache.save()

    def _forget(self) -> None:
        """Contexts first, then the engine, then what it came from."""
        self._busy.clear()
        self._slots.clear()
        self._cache = self._engine = None
        self._runtime = None

    def _context(self) -> Any:
        context = self._engine.create_execution_context(*([self._cache.config] if self._cache else []))
        if context is None:
            raise OutOfMemoryError(
                f"not enough GPU memory for a context ({self._log.reason()})",
                self.spec.name,
                hint="use --mode latency, or build the plan for smaller frames",
            )
        return context


class _Slot:
    """A context with its own stream and buffers, and what it does for one batch as a CUDA graph."""

    def __init__(self, cuda: Cuda, context: Any, names: tuple[str, str], log: Any) -> None:
        self.graph: Any | None = None
        self._cuda, self._context, self._names, self._log = cuda, context, names, log
        self._stream = cuda.stream()
        self._buffers: list[Buffer] = []
        self._shape: tuple[int, ...] = ()
        self._size = 0

    @property
    def bytes(self) -> int:
        return sum(len(buffer.host) for buffer in self._buffers)

    def start(self, batch: Pixels) -> None:
        if batch.shape != self._shape:
            self._prepare(batch.shape)
        self._buffers[0].host[: self._size] = batch.reshape(-1)
        if self.graph is not None:
            self._cuda.launch(self.graph, self._stream)
        else:
            self._queue()

    def finish(self) -> Pixels:
        self._cuda.wait(self._stream)
        return np.array(self._buffers[1].host[: self._size].reshape(self._shape))

    def compute_ms(self, count: int) -> list[float]:
        """Of the shape that it is prepared for, as one graph where frames are. The copy before it keeps the GPU
        busy while the work is queued, so that its start does not wait for the CPU.
        """
        graph = None if self.graph is None else self._cuda.capture(self._stream, self._execute)
        work = self._execute if graph is None else partial(self._cuda.launch, graph, self._stream)
        times = []
        try:
            for _ in range(count):
                self._cuda.upload(self._buffers[0], self._size, self._stream)
                times.append(self._cuda.elapsed_ms(self._stream, work))
        finally:
            if graph is not None:
                self._cuda.drop_graph(graph)
        return times

    def close(self) -> None:
        """Release everything, whatever state it is in and whatever fails of it."""
        with suppress(DeblurError):
            self._cuda.wait(self._stream)
        self._context = None
        releases = [self._forget_graph, *(buffer.free for buffer in self._buffers)]
        releases.append(partial(self._cuda.drop_stream, self._stream))
        self._buffers = []
        for release in releases:
            with suppress(DeblurError):
                release()

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Buffers, addresses and graph for another shape: run once as it is, then captured."""
        self._forget_graph()
        self._shape = ()
        self._size = int(np.prod(shape))
        if len(self._buffers) < 2 or len(self._buffers[0].host) < self._size:
            while self._buffers:
                self._buffers.pop().free()
            for _ in range(2):
                self._buffers.append(self._cuda.buffer(self._size))
        accepted = self._context.set_input_shape(self._names[0], tuple(shape))
        for name, buffer in zip(self._names, self._buffers, strict=True):
            accepted = accepted and self._context.set_tensor_address(name, buffer.device)
        if not accepted:
            raise EngineError(f"plan refuses frames of shape {shape} ({self._log.reason()})", hint="build it for them")
        self._queue()
        self._cuda.wait(self._stream)
        self.graph = self._cuda.capture(self._stream, self._queue)
        self._shape = shape

    def _queue(self) -> None:
        self._cuda.upload(self._buffers[0], self._size, self._stream)
        self._execute()
        self._cuda.download(self._buffers[1], self._size, self._stream)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream):
            raise EngineError(f"plan failed on a frame ({self._log.reason()})", hint="build it again")

    def _forget_graph(self) -> None:
        if self.graph is not None:
            self._cuda.drop_graph(self.graph)
            self.graph = None


class _RuntimeCache:
    """What TensorRT-RTX compiled for this GPU, kept beside the plan so that it starts at once the next time."""

    def __init__(self, trt: Any, engine: Any, path: Path) -> None:
        self._path = path
        self.config = engine.create_runtime_config()
        # Kernels for the very sizes in use are made before the first frame, not while frames wait.
        self.config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._cache = self.config.create_runtime_cache()
        self._before = path.read_bytes() if path.exists() else b""
        if self._before:
            self._cache.deserialize(self._before)  # one of another GPU or version is passed over
        self.config.set_runtime_cache(self._cache)

    def save(self) -> None:
        made = bytes(self._cache.serialize())
        if made == self._before:
            return
        try:
            partial_name(self._path).write_bytes(made)
            partial_name(self._path).replace(self._path)
        except OSError:
            pass  # the folder may be read-only; the cache is made again


def _require_version(path: Path, sidecar: Sidecar, version: str) -> None:
    if version != sidecar.version:
        raise UnfitPlanError(
            f"plan was built by {sidecar.flavour} {sidecar.version}, here is {version}",
            path,
            rebuild=sidecar.rebuild(path),
        )


def _require_device(path: Path, sidecar: Sidecar, device: Device) -> None:
    if device.compute_capability not in sidecar.compute_capabilities:
        raise UnfitPlanError(
            f"plan is for compute capability {', '.join(sidecar.compute_capabilities)}, "
            f"{device.name} has {device.compute_capability}",
            path,
            rebuild=sidecar.rebuild(path, compute_capability=device.compute_capability),
        )


def _require_loaded(path: Path, sidecar: Sidecar, engine: Any, log: Any) -> None:
    if engine is None and "memory" in log.reason().lower():
        raise OutOfMemoryError(f"not enough memory to load the plan ({log.reason()})", path, hint="free some")
    if engine is None:
        what = f"{sidecar.flavour} cannot load the plan ({log.reason()})"
        raise UnfitPlanError(what, path, rebuild=sidecar.rebuild(path))


def _names(trt: Any, engine: Any) -> tuple[str, str]:
    """Of the input and the output."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise EngineError(f"expected one input and one output, got {names}", hint="build it from an exported engine")
    return inputs[0], outputs[0]
