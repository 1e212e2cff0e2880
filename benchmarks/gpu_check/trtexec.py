"""Step that compares the computation of a plan with NVIDIA's own measurement tool."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from statistics import median

from benchmarks.gpu_check import processes
from benchmarks.gpu_check.gpu import read_frames
from benchmarks.gpu_check.kinds import CLIP
from benchmarks.gpu_check.steps import CheckError, Report
from runtime.engines.tensorrt import TensorRtEngine

MAX_RATIO = 1.10
"""Largest accepted ratio between the computation of our plan and that of trtexec."""
_LIMIT_S = 1500.0
_COUNT = 500


def compare(report: Report, *, trtexec: str, onnx: str, plan: str) -> None:
    """Let trtexec build and measure the same ONNX engine; the computation of our plan may take 10 % longer."""
    shape = f"{_read_input_name(onnx)}:1x{CLIP[1]}x{CLIP[0]}x3"
    command = [trtexec, f"--onnx={onnx}", *(f"--{end}Shapes={shape}" for end in ("min", "opt", "max"))]
    command += [f"--shapes={shape}", "--stronglyTyped", "--useCudaGraph", "--warmUp=1000", "--duration=5"]
    report.add(command=" ".join(command))
    code, text = processes.read_output(command, limit_s=_LIMIT_S)
    print(text)
    if code and re.search(r"(?i:unknown option).*stronglyTyped", text):  # a later version: networks always are
        command.remove("--stronglyTyped")
        code, text = processes.read_output(command, limit_s=_LIMIT_S)
        print(text)
    if code != 0:
        raise CheckError(f"trtexec ended with code {code}: {processes.last_line(text)}")
    trtexec_ms = parse_compute_ms(text)
    with contextlib.closing(TensorRtEngine(Path(plan))) as engine:
        ours_ms = median(engine.compute_ms(read_frames(1, CLIP)[0], count=_COUNT))
    report.add(trtexec_p50_ms=trtexec_ms, compute_p50_ms=round(ours_ms, 3), ratio=round(ours_ms / trtexec_ms, 3))
    report.add(note=f"our plan computes {ours_ms:.3f} ms, trtexec {trtexec_ms:.3f} ms")
    if ours_ms > MAX_RATIO * trtexec_ms:
        raise CheckError(f"our plan computes {ours_ms:.3f} ms, trtexec {trtexec_ms:.3f} ms for the same engine")


def parse_compute_ms(text: str) -> float:
    """Return the median GPU compute time in milliseconds of trtexec's report."""
    match = re.search(r"GPU Compute Time:.*?median = ([\d.]+) ms", text)
    if match is None:
        raise CheckError("trtexec printed no GPU compute time")
    return float(match[1])


def _read_input_name(onnx: str) -> str:
    import onnxruntime  # noqa: PLC0415 - only this step needs it

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return str(session.get_inputs()[0].name)
