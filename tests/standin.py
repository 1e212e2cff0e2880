"""Stand-ins for an NVIDIA GPU and for TensorRT, which compute with ONNX Runtime in host memory.

A "plan" is the ONNX file itself. The stand-ins are strict: queued work runs only when its stream is waited for, a
call outside an active context fails, and `close` fails if a buffer, stream or graph was not released.
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
LAYERS = (
    '{"Layers": [{"Name": "convert", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Row major FP32"}]},'
    ' {"Name": "conv", "LayerType": "CaskConvolution", "Outputs": [{"Format": "N/A", "Datatype": "Half"}]}]}'
)
"""Answer of TensorRT's inspector; the words for data types differ between its versions."""


class HostBuffer:
    def __init__(self, owner: HostCuda, size: int) -> None:
        self._owner = owner
        self.host = np.full(size, 77, np.uint8)
        self.memory = self.host if owner.device.integrated else np.full(size, 99, np.uint8)
        self.device = self.memory.ctypes.data

    def free(self) -> None:
        self._owner.live.remove(self)


class HostCuda:
    """Stand-in for `runtime.engines.cuda.Cuda` with host memory of `memory_bytes`."""

    def __init__(self, *, integrated: bool = False, graphs: bool = True, memory_bytes: int = 1 << 40) -> None:
        self.device = Device("stand-in", "8.9", integrated=integrated, driver="13.0")
        self.live: set[Any] = set()
        """Buffers, streams and graphs that are not released yet."""
        self.queues: dict[int, list[Callable[[], None]]] = {}
        """Queued work of each stream."""
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

    def allocate(self, size: int) -> HostBuffer:
        self.require_active()
        used = sum(len(item.host) for item in self.live if isinstance(item, HostBuffer))
        if used + size > self._memory_bytes:
            raise OutOfMemoryError("not enough GPU memory", hint="use smaller frames")
        buffer = HostBuffer(self, size)
        self.live.add(buffer)
        return buffer

    def create_stream(self) -> int:
        self.require_active()
        handle = 1000 + len(self.queues)
        self.queues[handle] = []
        self.live.add(handle)
        return handle

    def upload(self, buffer: HostBuffer, size: int, stream: int) -> None:
        self._copy(buffer.memory[:size], buffer.host[:size], stream)

    def download(self, buffer: HostBuffer, size: int, stream: int) -> None:
        self._copy(buffer.host[:size], buffer.memory[:size], stream)

    def _copy(self, target: np.ndarray, source: np.ndarray, stream: int) -> None:
        self.require_active()
        if not self.device.integrated:
            self.copies += 1
            self.queues[stream].append(lambda: np.copyto(target, source))

    def wait(self, stream: int) -> None:
        self.require_active()
        queue, self.queues[stream] = self.queues[stream], []
        for work in queue:
            work()

    def capture(self, stream: int, work: Callable[[], None]) -> Any | None:
        self.require_active()
        assert not self.queues[stream]
        try:
            work()
        except EngineError:
            self.queues[stream] = []
            return None
        graph, self.queues[stream] = HostGraph(self.queues[stream]), []
        if not self._graphs:
            return None
        self.live.add(graph)
        return graph

    def launch(self, graph: HostGraph, stream: int) -> None:
        self.require_active()
        assert graph in self.live
        self.launched += 1
        self.queues[stream] += graph.work

    def elapsed_ms(self, stream: int, work: Callable[[], None]) -> float:
        self.wait(stream)
        start = perf_counter()
        work()
        self.wait(stream)
        return 1e3 * (perf_counter() - start)

    def destroy_graph(self, graph: HostGraph) -> None:
        self.require_active()
        self.live.remove(graph)

    def destroy_stream(self, stream: int) -> None:
        self.require_active()
        assert not self.queues[stream], "released while work is queued"
        self.live.remove(stream)

    def close(self) -> None:
        assert not self.live, f"not released: {self.live}"
        self.closed = True


class HostGraph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = list(work)


class Logger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def __init__(self) -> None: ...


class Context:
    """Execution context: computes when its stream is waited for, with the addresses and the shape at queueing time."""

    def __init__(self, trt: StandInTensorRt, session: onnxruntime.InferenceSession) -> None:
        self.trt, self.session = trt, session
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == self.session.get_inputs()[0].name
        self.shape = shape
        return not self.trt.refuse_shapes

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of the output; TensorRT knows it without computing, also if the computation will fail."""
        assert name == self.session.get_outputs()[0].name
        zeros = np.zeros(self.shape, np.uint8)
        try:
            return self.session.run(None, {self.session.get_inputs()[0].name: zeros})[0].shape
        except Exception:  # noqa: BLE001 - errors of ONNX Runtime have no common class
            return tuple(self.shape)

    def is_stream_capturable(self, stream: int) -> bool:
        assert stream in self.trt.cuda.live
        return not self.trt.allocates

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.trt.cuda.require_active()
        self.trt.executions += 1
        if self.trt.executions == self.trt.fail_at:
            return False
        (source,), (target,) = self.session.get_inputs(), self.session.get_outputs()
        frames, result = (_array(self.addresses[node.name], self.shape) for node in (source, target))

        def compute() -> None:
            try:
                np.copyto(result, self.session.run(None, {source.name: frames})[0])
            except Exception as error:  # ONNX Runtime has many exception classes
                raise EngineError(f"engine failed: {error}", hint="") from error

        self.trt.cuda.queues[stream].append(compute)
        return True


class StandInTensorRt:
    """Stand-in for the module `tensorrt_rtx`, and for the engine that it loads."""

    __version__ = VERSION
    ILogger = Logger
    TensorIOMode = SimpleNamespace(INPUT=0, OUTPUT=1)
    DataType = SimpleNamespace(UINT8="tensor(uint8)", FLOAT="tensor(float)")
    LayerInformationFormat = SimpleNamespace(JSON=1)
    Builder = None
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    max_contexts = 99

    def __init__(self, cuda: HostCuda) -> None:
        self.cuda = cuda
        self.executions = self.contexts = 0
        self.fail_at = 0
        """Number of the execution that fails, counted from 1; 0 for none."""
        self.refuse_shapes = self.allocates = False
        self.cache = b""

    def Runtime(self, log: Any) -> Any:  # noqa: N802
        return SimpleNamespace(deserialize_cuda_engine=lambda content: self._engine(content, log))

    def _engine(self, content: bytes, log: Any) -> Any:
        self.cuda.require_active()
        try:
            session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - as above
            log.log(Logger.Severity.ERROR, f"magic tag does not match\n{error}")  # noqa: G004 - not of the module logging
            return None
        names = [session.get_inputs()[0].name, session.get_outputs()[0].name]
        types = [session.get_inputs()[0].type, session.get_outputs()[0].type]
        return SimpleNamespace(
            num_io_tensors=2,
            get_tensor_name=names.__getitem__,
            get_tensor_mode=names.index,
            get_tensor_dtype=dict(zip(names, types, strict=True)).__getitem__,
            device_memory_size_v2=1 << 20,
            create_runtime_config=self._config,
            create_execution_context=lambda config=None: self._context(session),
            create_engine_inspector=lambda: SimpleNamespace(get_engine_information=lambda _: LAYERS),
        )

    def _context(self, session: onnxruntime.InferenceSession) -> Context | None:
        self.contexts += 1
        return Context(self, session) if self.contexts <= self.max_contexts else None

    def _config(self) -> Any:
        def load(content: bytes) -> None:
            self.cache = content

        cache = SimpleNamespace(deserialize=load, serialize=lambda: self.cache or b"compiled")
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda _: None)


def _array(address: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * int(np.prod(shape))).from_address(address)).reshape(shape)


def install_stand_in(
    monkeypatch: pytest.MonkeyPatch, create_cuda: Callable[[], HostCuda] = HostCuda
) -> list[tuple[HostCuda, StandInTensorRt]]:
    """Let each plan that is opened use stand-ins of its own; they are added to the returned list."""
    stand_ins: list[tuple[HostCuda, StandInTensorRt]] = []

    def import_tensorrt(flavour: str) -> StandInTensorRt:
        cuda = create_cuda()
        stand_ins.append((cuda, StandInTensorRt(cuda)))
        return stand_ins[-1][1]

    monkeypatch.setattr("runtime.engines.tensorrt.import_tensorrt", import_tensorrt)
    monkeypatch.setattr("runtime.engines.tensorrt.open_cuda", lambda: stand_ins[-1][0])
    return stand_ins


def write_plan(onnx: Path, folder: Path, *, batch: int = 4, **changes: Any) -> Path:
    """Write a "plan" of an ONNX file and its sidecar for the stand-in; `changes` are fields of the sidecar."""
    content = onnx.read_bytes()
    plan = folder / f"{onnx.stem}.plan"
    plan.write_bytes(content)
    fields = {
        "engine": changes.get("engine") or inspect(onnx),
        "batch": (1, batch),
        "flavour": "tensorrt-rtx",
        "version": VERSION,
        "compute_capabilities": ("8.9",),
        "onnx": onnx.name,
        "onnx_sha256": hashlib.sha256(content).hexdigest(),
        "plan_sha256": hashlib.sha256(content).hexdigest(),
    }
    sidecar_path(plan).write_text(Sidecar(**fields | changes).to_json())
    return plan
