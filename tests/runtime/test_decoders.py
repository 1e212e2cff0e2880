"""Decoders of GStreamer beside those of FFmpeg: the same frames at the same times."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import InputError, UsageError
from runtime.sources import open_source
from tests.conftest import write_clip
from tests.rig import skip_without_gstreamer

MADE = {
    "B-frames.mp4": "-c:v libx264 -bf 3",
    "uneven.mkv": "-c:v libx264 -bf 3 -vf setpts=PTS+0.03*random(1)/TB -fps_mode passthrough",
    "broadcast.ts": "-c:v libx264 -bf 3",
    "hevc.mp4": "-c:v libx265 -x265-params log-level=none",
    "ten_bits.mkv": "-c:v libx265 -x265-params log-level=none -pix_fmt yuv420p10le",
    "4_4_4.mp4": "-c:v libx264 -pix_fmt yuv444p",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime",
}
COPIED = {"cut.mp4": ("-ss 0.5", "-c copy"), "rotated.mp4": ("", "-c copy -metadata:s:v rotate=90")}
"""Copies of the first clip: one that begins with frames that are not shown, and one that is to be rotated."""
DECODERS = {"hevc.mp4": "avdec_h265", "ten_bits.mkv": "avdec_h265", "vp9.webm": "vp9dec"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, options in MADE.items():
        pattern = ["-f", "lavfi", "-i", "testsrc2=s=66x50:r=25:d=1"]  # rows are no multiple of four bytes
        form = [] if "-pix_fmt" in options else ["-pix_fmt", "yuv420p"]
        run_ffmpeg(*pattern, *options.split(), *form, str(folder / name))
    for name, (before, after) in COPIED.items():
        run_ffmpeg(*before.split(), "-i", str(folder / "B-frames.mp4"), *after.split(), str(folder / name))
    return folder


def run_ffmpeg(*arguments: str) -> None:
    command = ["ffmpeg", "-v", "error", "-y", *arguments]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("name", [*MADE, *COPIED])
def test_gstreamer_gives_the_frames_and_times_of_ffmpeg(name: str, folder: Path) -> None:
    element = DECODERS.get(name, "avdec_h264")
    skip_without_gstreamer(element, "gdppay")
    path = str(folder / name)
    expected, source = open_source(path), open_source(path, decoder=f"gstreamer:{element}")
    assert source.info == expected.info
    frames, wanted = list(source), list(expected)
    assert [frame.pts for frame in frames] == [frame.pts for frame in wanted]
    assert all(np.array_equal(frame.bgr, other.bgr) for frame, other in zip(frames, wanted, strict=True))
    assert source.damage is None
    assert source.warnings == expected.warnings
    source.close()


def test_a_decoder_of_another_codec_is_one_line(folder: Path) -> None:
    skip_without_gstreamer("avdec_h265", "gdppay")
    with pytest.raises(InputError, match=r"avdec_h265 does not decode it .*; use the software decoder"):
        open_source(str(folder / "B-frames.mp4"), decoder="gstreamer:avdec_h265")


def test_what_a_decoder_of_gstreamer_is_not_given(tmp_path: Path) -> None:
    skip_without_gstreamer("avdec_mpeg4", "gdppay")
    write_clip(tmp_path / "a.mp4", codec="mpeg4")
    with pytest.raises(UsageError, match="is not given mpeg4"):
        open_source(str(tmp_path / "a.mp4"), decoder="gstreamer:avdec_mpeg4")
    with pytest.raises(UsageError, match="is for files"):
        open_source("rtsp://127.0.0.1:9/a", decoder="gstreamer:avdec_mpeg4")
