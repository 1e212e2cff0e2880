"""Steps from frame source to output: a minute of video through the plan, and frames of a CSI camera."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.assets import DEMO_BLURRED
from benchmarks.gpu_check import processes
from benchmarks.gpu_check.steps import CheckError, Report
from benchmarks.power.metering import monitor_power
from runtime.engines import open_engine
from runtime.sources import LiveOptions, open_source

_TRIAL_LOOPS = 3
_MAX_LOOPS = 600
"""Largest number of times that the demo clip, of 100 frames, is repeated: the disk of a board is small."""
_CAMERA_FRAMES = 30
_SAMPLERS = (
    ("tegrastats", "--interval", "1000"),
    (
        "nvidia-smi",
        "--query-gpu=timestamp,utilization.gpu,clocks.sm,power.draw,temperature.gpu,memory.used",
        "--format=csv",
        "--loop=1",
    ),
)
"""Commands that print the state of the machine every second."""


def run_video(report: Report, *, plan: str, folder: str, seconds: float) -> None:
    """Restore a clip that takes about `seconds` seconds with `python -m runtime.video`, and watch the machine."""
    place = Path(folder)
    clip = place / "stream_source.mp4"
    frames = write_loop(clip, _TRIAL_LOOPS)
    trial = _restore(plan, clip, place)
    loops = round(seconds * trial["fps"] / frames * _TRIAL_LOOPS)
    loops = min(max(_TRIAL_LOOPS, loops), _MAX_LOOPS)
    frames = write_loop(clip, loops)
    samples = place / "stream_samples.txt"
    with monitor_power() as power, _sample(samples) as sampler:
        run = _restore(plan, clip, place)
    report.add(
        frames=frames,
        seconds=run["seconds"],
        fps=run["fps"],
        latency_ms=run["latency_ms"],
        backend=run["backend"],
        sampler=sampler,
        power=power.summarize(frames),
    )
    for name in ("stream_source.mp4", "stream_restored.mp4"):  # they may be large
        (place / name).unlink()
    counts = run["frames"]
    if counts["written"] != frames or counts["dropped"] or counts["rejected"]:
        raise CheckError(f"{frames} frames were given, the report counts {counts}")


def write_loop(path: Path, loops: int) -> int:
    """Write the demo clip several times in a row, without encoding it again; return the number of frames."""
    count = 0
    with av.open(str(DEMO_BLURRED)) as source, av.open(str(path), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for loop in range(loops):
            source.seek(0)
            for packet in source.demux(stream):
                if packet.size == 0 or packet.pts is None or packet.dts is None or stream.duration is None:
                    continue
                packet.pts += loop * stream.duration
                packet.dts += loop * stream.duration
                packet.stream = copy
                output.mux(packet)
                count += 1
    return count


def _restore(plan: str, clip: Path, folder: Path) -> dict[str, Any]:
    """Run the command line of the runtime and return its statistics."""
    statistics = folder / "stream_statistics.json"
    command = [*processes.PYTHON, "-m", "runtime.video", "-y", "--engine", plan, "--source", str(clip)]
    command += ["--out", str(folder / "stream_restored.mp4"), "--stats", str(statistics)]
    code = subprocess.run(command, cwd=processes.ROOT, check=False).returncode  # noqa: S603
    if code:
        raise CheckError(f"python -m runtime.video ended with code {code}; its error is in the log")
    values: dict[str, Any] = json.loads(statistics.read_text())
    return values


@contextlib.contextmanager
def _sample(path: Path) -> Iterator[str | None]:
    """Let tegrastats or nvidia-smi write the state of the machine to a file; yield its name, or None without both."""
    command = next((command for command in _SAMPLERS if shutil.which(command[0])), None)
    if command is None:
        yield None
        return
    with path.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
        try:
            yield command[0]
        finally:
            child.terminate()
            child.wait()


def read_camera(report: Report, *, plan: str) -> None:
    """Read 30 frames of the first CSI camera and restore them with the plan."""
    live = LiveOptions(camera_size=(1280, 720), camera_fps=30)
    with contextlib.closing(open_source("csi://0", live)) as source, open_engine(plan) as engine:
        frames = [frame.bgr for frame in islice(source, _CAMERA_FRAMES)]
        report.add(frames=len(frames), shape=list(frames[0].shape) if frames else None)
        results = [engine(frame) for frame in frames]
    if len(frames) < _CAMERA_FRAMES:
        raise CheckError(f"the camera gave {len(frames)} frames instead of {_CAMERA_FRAMES}")
    report.add(brightness=[round(float(frame.mean()), 1) for frame in frames], restored=len(results))
    if all(np.array_equal(frame, frames[0]) for frame in frames):
        raise CheckError("all frames of the camera are the same")
