"""Python with stand-ins for a GPU and TensorRT: `python tests/rig/with_gpu.py -m MODULE ...`, or `-c CODE ...`.

`STAND_IN_FAULT=TEXT:KIND` lets the first computation of a process fail whose command line holds `TEXT`; `KIND` is a
key of `FAULTS`.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import runpy
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path[0] = str(Path(__file__).parents[2])

MEMORY_BYTES = 1 << 30


def raise_error() -> None:
    raise RuntimeError("the stand-in failed")


FAULTS = {
    "signal": faulthandler._sigsegv,
    "hang": lambda: time.sleep(1000),
    "exception": raise_error,
    "exit": lambda: os._exit(3),
    "late": lambda: atexit.register(faulthandler._sigsegv),
    "black": lambda: None,
}


def install() -> None:
    """Replace the GPU, TensorRT and its builder in this process."""
    from runtime.engines import cuda, cuda_drivers, nvidia, tensorrt
    from tests.standin import HostCuda, StandInTensorRt

    class SharedCuda(HostCuda):
        """The only GPU of a process, which can be opened several times."""

        def close(self) -> None:
            assert not self.live, f"not released: {self.live}"

    gpu = SharedCuda(memory_bytes=MEMORY_BYTES)
    trt = StandInTensorRt(gpu)
    cuda.probe = lambda index=0: gpu.device
    cuda_drivers.open_cuda = tensorrt.open_cuda = lambda index=0: gpu
    nvidia.import_tensorrt = tensorrt.import_tensorrt = lambda flavour: trt
    from benchmarks.gpu_check import driver, preflight, processes
    from export.plan import builder

    processes.PYTHON = (*processes.PYTHON, __file__)
    builder.build_plan = build_plan
    preflight.find_spec = lambda name: None
    driver.ManagedBuffer = gpu.allocate
    _replace_memory(driver, gpu)
    text, _, kind = os.environ.get("STAND_IN_FAULT", "").partition(":")
    if text and any(text in word for word in sys.argv):
        _plant(kind)


def _replace_memory(driver: ModuleType, gpu: Any) -> None:
    """Let blocks for the GPU alone take the memory that buffers could have."""
    blocks: list[int] = []

    def allocate(size: int) -> int | None:
        if size > driver.free_bytes():
            return None
        blocks.append(size)
        gpu._memory_bytes -= size
        return len(blocks)

    def release(address: int) -> None:
        gpu._memory_bytes += blocks[address - 1]

    driver.allocate, driver.release = allocate, release
    driver.free_bytes = lambda: gpu._memory_bytes


def _plant(kind: str) -> None:
    """Let every computation begin with a fault; `black` has none, and leaves the output black instead."""
    from tests.standin import Context

    compute = Context.execute_async_v3

    def execute_async_v3(self: Context, stream: int) -> bool:
        FAULTS[kind]()
        if kind == "black":
            self.session = BlackSession(self.session)
        return compute(self, stream)

    Context.execute_async_v3 = execute_async_v3


class BlackSession:
    """A session of ONNX Runtime with other output."""

    def __init__(self, session: Any) -> None:
        self.get_inputs, self.get_outputs, self._run = session.get_inputs, session.get_outputs, session.run

    def run(self, names: None, inputs: dict[str, Any]) -> list[Any]:
        return [0 * result for result in self._run(names, inputs)]


def build_plan(content: bytes, spec: Any, config: Any, *, name: str, **_: Any) -> tuple[bytes, Any]:
    """Return an ONNX file as the plan of it, with its sidecar."""
    from dataclasses import replace

    from runtime.sidecar import Sidecar, sidecar_path
    from tests.standin import write_plan

    widths, heights = zip(config.min_size, config.max_size, strict=True)
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / name
        onnx.write_bytes(content)
        engine = replace(spec, width=widths, height=heights)
        plan = write_plan(onnx, Path(folder), batch=config.batch, flavour=config.flavour, engine=engine)
        return content, Sidecar.from_json(sidecar_path(plan).read_text())


def pretend_installed() -> None:
    """Let the packages of the GPU path be importable; nothing in them is called."""
    for name in ("tensorrt", "cuda", "cuda.bindings", "cuda.bindings.driver"):
        module = ModuleType(name)
        module.__file__, module.__version__ = f"/stand-in/{name}.py", "10.3.0"  # type: ignore[attr-defined]
        module.__path__, module.Builder = [], None  # type: ignore[attr-defined]
        sys.modules[name] = module


def main() -> None:
    sys.argv = sys.argv[1:]
    way, what = sys.argv[:2]
    sys.argv = sys.argv[1:]
    if way == "-m":
        install()
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        pretend_installed()
        if "runtime.engines" in what:
            install()
        exec(compile(what, "<code>", "exec"), {"__name__": "__main__"})  # noqa: S102 - the code of our own checks


if __name__ == "__main__":
    main()
