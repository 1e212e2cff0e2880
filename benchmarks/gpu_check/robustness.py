"""Steps about what goes wrong: damaged plans, no memory, and a build that is killed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.gpu_check import driver, processes
from benchmarks.gpu_check.gpu import detect_flavour, read_frames
from benchmarks.gpu_check.kinds import CLIP, PLANS
from benchmarks.gpu_check.steps import CheckError, NotRunError, Report
from runtime.engines.cuda_drivers import open_cuda
from runtime.engines.tensorrt import TensorRtEngine
from runtime.errors import DeblurError, OutOfMemoryError, UnfitPlanError
from runtime.sidecar import sidecar_path

_BLOCKS = (256 << 20, 16 << 20, 1 << 20)
"""Sizes of the blocks that fill the memory of the GPU, the largest first."""
_KEPT_BYTES = 256 << 20
"""Memory that is left to the system where CPU and GPU share it."""
_KILLED_AFTER = (0.5, 0.25, 0.125)
"""Moments at which a build is killed, as shares of a whole build; the next one is tried if the build has ended."""


def refuse_plan(report: Report, *, plan: str, damage: str) -> None:
    """Open a plan that is not right: it must be refused with one line.

    `damage`: `version` for another version of TensorRT in the sidecar, `changed` for bytes that the sidecar does not
    describe, `junk` and `half` for random bytes and half a plan, whose SHA-256 the sidecar has, so that TensorRT itself
    gets them.
    """
    source, copy = Path(plan), Path(plan).with_name(f"refused_{damage}.plan")
    content = source.read_bytes()
    values = json.loads(sidecar_path(source).read_text())
    if damage == "version":
        values["version"] = "0.0.1"
    elif damage == "junk":
        content = np.random.default_rng(0).bytes(len(content))
    else:
        content = content[: len(content) // 2]
    if damage != "changed":
        values["plan_sha256"] = hashlib.sha256(content).hexdigest()
    copy.write_bytes(content)
    sidecar_path(copy).write_text(json.dumps(values))
    try:
        TensorRtEngine(copy).close()
    except UnfitPlanError as error:
        report.add(message=str(error))
    else:
        raise CheckError("the plan was opened instead of being refused")


def run_out_of_memory(report: Report, *, plan: str) -> None:
    """Fill the memory of the GPU and open a plan: one line must say that memory is missing, and later it must open."""
    frame, largest = (read_frames(1, size)[0] for size in (CLIP, PLANS["dynamic"].sizes[2]))
    with contextlib.suppress(OSError):  # the kernel ends this process first, and not the desktop
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.closing(open_cuda()) as cuda, cuda.active():
        kept = _KEPT_BYTES if cuda.device.integrated else 0
        report.add(free_before_mib=driver.free_bytes() >> 20)
        ballast = _fill_memory(kept)
        report.add(free_mib=driver.free_bytes() >> 20)
        try:
            with contextlib.closing(TensorRtEngine(Path(plan), mode="throughput")) as engine:
                engine.infer(largest)
        except OutOfMemoryError as error:
            report.add(message=str(error))
        except DeblurError as error:
            raise CheckError(f"the error does not say that memory is missing: {error}") from error
        else:
            if kept:
                raise NotRunError(f"the plan fits into the {kept >> 20} MiB that are left to the system")
            raise CheckError("the plan runs although the memory of the GPU was full")
        finally:
            for address in ballast:
                driver.release(address)
    with contextlib.closing(TensorRtEngine(Path(plan))) as engine:
        engine.infer(frame)


def _fill_memory(kept_bytes: int) -> list[int]:
    """Allocate GPU memory until only `kept_bytes` are free; return the addresses of the blocks."""
    addresses: list[int] = []
    for size in _BLOCKS:
        while driver.free_bytes() >= kept_bytes + size:
            address = driver.allocate(size)
            if address is None:
                break
            addresses.append(address)
    return addresses


def kill_build(report: Report, *, onnx: str, plan: str) -> None:
    """Kill a build in the middle: neither plan nor sidecar may be left, and the next build must work."""
    path = Path(plan)
    outputs = (path, sidecar_path(path))
    command = [*processes.PYTHON, "-m", "export.plan", onnx, "--out", plan]
    command += ["--target", detect_flavour(), "--size", f"{CLIP[0]}x{CLIP[1]}"]
    began = perf_counter()
    _build(command)
    build_s = perf_counter() - began
    for share in _KILLED_AFTER:
        for output in outputs:
            output.unlink(missing_ok=True)
        if not _kill_after(command, share * build_s):
            continue
        report.add(build_s=round(build_s, 1), killed_after_s=round(share * build_s, 1))
        if left := [output.name for output in outputs if output.exists()]:
            raise CheckError(f"the killed build left {' and '.join(left)}")
        _build(command)
        with contextlib.closing(TensorRtEngine(path)) as engine:
            engine.infer(read_frames(1, CLIP)[0])
        return
    raise CheckError(f"every build ended before it could be killed; the first one took {build_s:.1f} s")


def _build(command: list[str]) -> None:
    code = subprocess.run(command, cwd=processes.ROOT, check=False).returncode  # noqa: S603
    if code:
        raise CheckError(f"the build ended with code {code}")


def _kill_after(command: list[str], seconds: float) -> bool:
    """Start a build and kill it after some seconds; return False if it had ended before."""
    child = subprocess.Popen(command, cwd=processes.ROOT)  # noqa: S603
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        return True
    else:
        return False
    finally:
        child.wait()
