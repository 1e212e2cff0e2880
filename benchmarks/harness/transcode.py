"""FFmpeg as encoder with the settings of the toolkit's video files, and facts of files that it or the toolkit wrote."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av

from benchmarks.harness.processes import JobError, run_job

HEAD_FRAMES = 8
"""Number of frames of the short clip that measures what starting and ending a job costs."""
_X264 = {"preset": "superfast", "crf": "18", "x264-params": "mbtree=0", "thread_type": "slice"}
"""Settings of `runtime.sinks.encoder`, with PyAV's type of threads; a test compares what x264 says of both."""
_SETTINGS = b" - options: "
"""Text before the settings that x264 writes into its first frame."""
_THREADS = ("threads", "lookahead_threads")
"""Settings that depend on the machine and not on the request."""


def find_ffmpeg() -> str:
    """Return the path of `ffmpeg`; raise JobError if it is not installed."""
    path = shutil.which("ffmpeg")
    if path is None:
        raise JobError("ffmpeg is not installed")
    return path


def encode_command(source: Sequence[str], out: Path, *, frame_rate: Fraction) -> list[str]:
    """Return the `ffmpeg` command that encodes without sound, with the settings of the toolkit's video files.

    `source`: arguments of `ffmpeg` that name the input.
    """
    settings = [word for name, value in _X264.items() for word in (f"-{name}", value)]
    # A fragment of the toolkit's files is a second and begins with a key frame.
    encoder = ["-an", "-c:v", "libx264", *settings, "-g", str(max(1, round(frame_rate)))]
    return [find_ffmpeg(), "-nostdin", "-v", "error", "-y", *source, *encoder, str(out)]


def write_head(clip: Path, out: Path, *, frame_rate: Fraction) -> None:
    """Encode the first HEAD_FRAMES frames of a clip; raise JobError if that fails."""
    command = encode_command(["-i", str(clip)], out, frame_rate=frame_rate)
    run_job([[*command[:-1], "-frames:v", str(HEAD_FRAMES), command[-1]]])


def read_frame_rate(clip: Path) -> Fraction:
    """Return the average frame rate of a video file."""
    with av.open(str(clip)) as container:
        return Fraction(container.streams.video[0].average_rate or 25)


def read_x264_settings(video: Path) -> dict[str, str]:
    """Return the settings that x264 wrote into a file, without numbers of threads; empty if another encoder did."""
    with av.open(str(video)) as container:
        packet = next(container.demux(video=0))
        text = bytes(packet).partition(_SETTINGS)[2].partition(b"\0")[0].decode(errors="replace")
    pairs = (word.partition("=")[::2] for word in text.split())
    return {name: value for name, value in pairs if name not in _THREADS}
