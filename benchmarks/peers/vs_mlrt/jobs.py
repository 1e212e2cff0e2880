"""The file jobs that are compared: their commands, and what they cost a frame."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from benchmarks.harness.processes import Command, JobError, run_job
from benchmarks.harness.transcode import encode_command
from runtime.engines.base import first_line

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("script.py")
PLUGINS = {"ov": "OpenVINO", "ort": "ONNX Runtime"}
"""Plug-ins of vs-mlrt that compute on the CPU, by their name in VapourSynth."""
_DESCRIBE_LIMIT_S = 60
_IN_FLOAT32 = json.dumps({"INFERENCE_PRECISION_HINT": "f32"})


@dataclass(frozen=True, kw_only=True)
class Job:
    """A way to restore a clip to a file."""

    name: str
    network: str
    role: Literal["toolkit", "peer"]
    make_commands: Callable[[Path, Path], Sequence[Command]]
    """Returns the commands that restore the first path to the second."""

    @property
    def label(self) -> str:
        return f"{self.network}, {self.name}"

    def run(self, clip: Path, out: Path) -> tuple[float, float, str]:
        """Restore a clip; return seconds of wall time and of processor time, and what was written to standard error."""
        cost = run_job(self.make_commands(clip, out), environment={"PYTHONPATH": str(ROOT)})
        return cost.wall_s, cost.cpu_s, cost.messages


def describe_vapoursynth(python: str) -> dict[str, str]:
    """Return the versions in the environment of a Python; raise JobError if something is missing there."""
    try:
        done = subprocess.run(  # noqa: S603 - the user names the Python
            [python, str(SCRIPT)], capture_output=True, text=True, timeout=_DESCRIBE_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JobError(f"{python} does not run ({first_line(error)})") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise JobError(f"VapourSynth does not start in {python} ({lines[-1]})")
    versions: dict[str, str] = json.loads(done.stdout)
    if "bestsource" not in versions or not versions.keys() & PLUGINS.keys():
        raise JobError(f"{python} has VapourSynth without bestsource or without a plug-in of vs-mlrt")
    return versions


def list_toolkit_jobs(network: str) -> list[Job]:
    """List `python -m runtime.video` with the bundled engine of a network, on both CPU backends."""

    def make(provider: str) -> Callable[[Path, Path], Sequence[Command]]:
        options = ["--engine", network, "--provider", provider]
        return lambda clip, out: [
            [sys.executable, "-m", "runtime.video", "-y", *options, "--source", str(clip), "--out", str(out)]
        ]

    return [
        Job(name=f"runtime.video, {backend}", network=network, role="toolkit", make_commands=make(provider))
        for provider, backend in (("openvino", "OpenVINO"), ("cpu", "ONNX Runtime"))
    ]


def list_peer_jobs(
    network: str, model: Path, *, python: str, plugins: Sequence[str], streams: int, frame_rate: Fraction
) -> list[Job]:
    """List vs-mlrt with a float model: each plug-in with its defaults and with a stream a core, OpenVINO in float32.

    `plugins`: names in VapourSynth of those that are installed.
    """
    variants = [("defaults", []), (f"{streams} streams", ["--streams", str(streams)])]
    float32 = [("float32", ["--streams", str(streams), "--settings", _IN_FLOAT32])]

    def make(plugin: str, options: Sequence[str]) -> Callable[[Path, Path], Sequence[Command]]:
        def commands(clip: Path, out: Path) -> Sequence[Command]:
            index = clip.with_suffix(".index")  # of bestsource, which decodes the whole clip where it has none
            source = ["--clip", str(clip), "--index", str(index), "--model", str(model), "--plugin", plugin]
            encode = encode_command(["-f", "yuv4mpegpipe", "-i", "-"], out, frame_rate=frame_rate)
            return [[python, str(SCRIPT), *source, *options], encode]

        return commands

    return [
        Job(
            name=f"vs-mlrt, {PLUGINS[plugin]}, {name}",
            network=network,
            role="peer",
            make_commands=make(plugin, options),
        )
        for plugin in PLUGINS
        if plugin in plugins
        for name, options in [*variants, *(float32 if plugin == "ov" else [])]
    ]
