"""A GPU and TensorRT that are not there: small enough to check, computing with ONNX Runtime on host memory.

Work is queued on streams and done when they are waited for, memory is only what was asked for, and
everything must be used in an active context and released. A "plan" is the ONNX file itself.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from runtime.engines.cuda import Device
from runtime.engines.onnx import inspect
from runtime.errors import EngineError, OutOfMemoryError
from runtime.sidecar import Sidecar, sidecar_path

VERSION = "1.7.1.116"


class HostBuffer:
    def __init__(self, owner: HostCuda, size: int) -> None:
        self._owner = owner
        self.host = np.full(size, 77, np.uint8)
        self.memory = self.host if owner.device.integrated else np.full(size, 99, np.uint8)
        self.device = self.memory.ctypes.data

    def free(self) -> None:
        self._owner.live.remove(self)


class HostCuda:
    """As `runtime.engines.cuda.Cuda` describes it."""

    def __init__(self, *, integrated: bool = False, graphs: bool = True, memory_bytes: int = 1 << 40) -> None:
        self.device = Device("stand-in", "8.9", integrated=integrated, driver="13.0")
        self.live: set[Any] = set()
        """Buffers, streams and graphs that were not released."""
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.launched = 0
        self.copies = 0
        self.closed = False
        self._graphs, self._memory_bytes, self._depth = graphs, memory_bytes, 0

    @contextmanager
    def active(self) -> Iterator[None]:
        assert not self.closed
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    def require_active(self) -> None:
        assert self._depth, "used outside the context"

    def buffer(self, size: int) -> HostBuffer:
        self.require_active()
        used = sum(len(each.host) for each in self.live if isinstance(each, HostBuffer))
        if used + size > self._memory_bytes:
            raise OutOfMemoryError("not enough GPU memory", hint="use smaller frames")
        made = HostBuffer(self, size)
        self.live.add(made)
        return made

    def stream(self) -> int:
        self.require_active()
        handle = 1000 + len(self.queues)
        self.queues[handle] = []
        self.live.add(handle)
        return handle

    def upload(self, buffer: HostBuffer, size: int, stream: int) -> None:
        self._copy(buffer.memory[:size], buffer.host[:size], stream)

    def download(self, buffer: HostBuffer, size: int, stream: int) -> None:
        self._copy(buffer.host[:size], buffer.memory[:size], stream)

    def _copy(self, to: np.ndarray, source: np.ndarray, stream: int) -> None:
        self.require_active()
        if not self.device.integrated:
            self.copies += 1
            self.queues[stream].append(lambda: np.copyto(to, source))

    def wait(self, stream: int) -> None:
        self.require_active()
        queued, self.queues[stream] = self.queues[stream], []
        for work in queued:
            work()

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        self.require_active()
        assert not self.queues[stream]
        try:
            work()
        except EngineError:
            self.queues[stream] = []
            return None
        graph, self.queues[stream] = SimpleGraph(self.queues[stream]), []
        if not self._graphs:
            return None
        self.live.add(graph)
        return graph

    def launch(self, graph: SimpleGraph, stream: int) -> None:
        self.require_active()
        assert graph in self.live
        self.launched += 1
        self.queues[stream] += graph.work

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        self.wait(stream)
        began = perf_counter()
        work()
        self.wait(stream)
        return 1e3 * (perf_counter() - began)

    def drop_graph(self, graph: SimpleGraph) -> None:
        self.require_active()
        self.live.remove(graph)

    def drop_stream(self, stream: int) -> None:
        self.require_active()
        assert not self.queues[stream], "released while work is queued"
        self.live.remove(stream)

    def close(self) -> None:
        assert not self.live, f"not released: {self.live}"
        self.closed = True


class SimpleGraph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = list(work)


class Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def __init__(self) -> None: ...


class Context:
    """Computes when its stream is waited for, at the addresses and shape of when it was queued."""

    def __init__(self, trt: StandInTensorRt, session: onnxruntime.InferenceSession) -> None:
        self.trt, self.session = trt, session
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == self.session.get_inputs()[0].name
        self.shape = shape
        return not self.trt.refuse_shapes

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.trt.cuda.require_active()
        self.trt.executions += 1
        if self.trt.executions == self.trt.fail_at:
            return False
        (source,), (target,) = self.session.get_inputs(), self.session.get_outputs()
        frames, result = (_array(self.addresses[each.name], self.shape) for each in (source, target))

        def compute() -> None:
            try:
                np.copyto(result, self.session.run(None, {source.name: frames})[0])
            except Exception as error:  # ONNX Runtime has many classes
                raise EngineError(f"engine failed: {error}", hint="") from error

        self.trt.cuda.queues[stream].append(compute)
        return True


class StandInTensorRt:
    """The module, and the engine that it loads."""

    __version__ = VERSION
    ILogger = Logger
    TensorIOMode = SimpleNamespace(INPUT=0, OUTPUT=1)
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    def __init__(self, cuda: HostCuda) -> None:
        self.cuda = cuda
        self.executions = 0
        self.fail_at = 0
        self.refuse_shapes = False
        self.cache = b""

    def Runtime(self, log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda content: self._engine(content, log))

    def _engine(self, content: bytes, log: Any) -> Any:
        self.cuda.require_active()
        try:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - as above
            log.log(Logger.Severity.ERROR, f"magic tag does not match\n{error}")  # noqa: G004 - not logging's
            return None
        names = [session.get_inputs()[0].name, session.get_outputs()[0].name]
        return SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=names.__getitem__,
            get_tensor_mode=names.index,
            device_memory_size_v2=1 << 20,
            create_runtime_config=self._config,
            create_execution_context=lambda config=None: Context(self, session),
        )

    def _config(self) -> Any:
        def load(content: bytes) -> None:
            self.cache = content

        cache = SimpleNamespace(deserialize=load, serialize=lambda: self.cache or b"compiled")
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda _: None)


def _array(address: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * int(np.prod(shape))).from_address(address)).reshape(shape)


def put_in_place(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], HostCuda] = HostCuda
) -> list[tuple[HostCuda, StandInTensorRt]]:
    """Have every plan that is opened find a stand-in of its own; returns them as they are made."""
    made: list[tuple[HostCuda, StandInTensorRt]] = []

    def package(flavour: str) -> StandInTensorRt:
        cuda = make()
        made.append((cuda, StandInTensorRt(cuda)))
        return made[-1][1]

    monkeypatch.setattr("runtime.engines.tensorrt.package", package)
    monkeypatch.setattr("runtime.engines.tensorrt.open_cuda", lambda: made[-1][0])
    return made


def write_plan(onnx: Path, folder: Path, *, batch: int = 4, **changes: Any) -> Path:
    """A "plan" of an ONNX file with its sidecar, for the stand-in."""
    content = onnx.read_bytes()
    plan = folder / f"{onnx.stem}.plan"
    plan.write_bytes(content)
    facts = {
        "engine": inspect(onnx),
        "batch": (1, batch),
        "flavour": "tensorrt-rtx",
        "version": VERSION,
        "compute_capabilities": ("8.9",),
        "onnx": onnx.name,
        "onnx_sha256": hashlib.sha256(content).hexdigest(),
        "plan_sha256": hashlib.sha256(content).hexdigest(),
    }
    sidecar_path(plan).write_text(Sidecar(**facts | changes).to_json())
    return plan
