"""Media files that the `ffmpeg` command makes: PyAV cannot write all that files hold."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def ffmpeg(*arguments: object) -> None:
    """Run the `ffmpeg` command; skips the test where it is not installed, except on CI."""
    if shutil.which("ffmpeg") is None and not os.environ.get("CI"):
        pytest.skip("no ffmpeg: apt install ffmpeg")
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)  # noqa: S607


def make_clip(path: Path, *options: object, filters: str = "null", codec: str = "libx264", frames: int = 10) -> Path:
    """Write a test pattern of 96x64 pixels at 10 fps and return its path; `filters` change it before the encoder."""
    pattern = f"testsrc2=s=96x64:r=10:d={frames / 10}"
    ffmpeg("-f", "lavfi", "-i", pattern, "-vf", filters, "-c:v", codec, "-threads", 1, *options, path)
    return path
