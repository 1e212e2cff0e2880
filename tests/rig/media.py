"""Media files that the `ffmpeg` command makes: PyAV cannot write all that files hold."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from tests.conftest import make_image

TAGS = {
    "title": "My trip",
    "artist": "Me",
    "comment": "mine",
    "creation_time": "2021-03-04T05:06:07.000000Z",
    "location": "+48.8577+002.2950/",
}
CHAPTERS = [(0.0, 0.5, "One"), (0.5, 1.0, "Two")]


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


def make_rich(folder: Path) -> dict[str, Path]:
    """Write files with all that a container holds, and return their paths by suffix."""
    (folder / "subtitles.srt").write_text("1\n00:00:00,100 --> 00:00:00,800\nHello\n")
    tags = "".join(f"{key}={value}\n" for key, value in TAGS.items())
    chapters = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start * 1000:g}\nEND={end * 1000:g}\ntitle={title}\n"
        for start, end, title in CHAPTERS
    )
    (folder / "tags.txt").write_text(f";FFMETADATA1\n{tags}{chapters}")
    (folder / "font.ttf").write_bytes(b"font")
    cv2.imwrite(str(folder / "cover.jpg"), make_image(32, 32))
    video = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=1")
    sound = [part for pitch in (440, 880) for part in ("-f", "lavfi", "-i", f"sine={pitch}:d=1")]
    texts = ("-i", folder / "subtitles.srt", "-i", folder / "tags.txt")
    maps = ("-map", 0, "-map", 1, "-map", 2, "-map", 3, "-map_metadata", 4, "-map_chapters", 4)
    about = (
        *("-metadata:s:v", "language=ita", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra"),
        *("-metadata:s:a:1", "title=Commentary", "-disposition:a:1", "comment", "-metadata:s:s", "language=spa"),
    )
    codecs = ("-c:v", "libx264", "-threads", 1, "-c:a", "aac")
    mkv, mp4 = folder / "rich.mkv", folder / "rich.mp4"
    font = ("-attach", folder / "font.ttf", "-metadata:s:t", "mimetype=font/ttf")
    cover = ("-attach", folder / "cover.jpg", "-metadata:s:t:1", "mimetype=image/jpeg")
    ffmpeg(*video, *sound, *texts, *maps, *about, *font, *cover, *codecs, "-c:s", "srt", mkv)
    image, jpeg = ("-i", folder / "cover.jpg"), ("-map", 5, "-c:v:1", "copy", "-disposition:v:1", "attached_pic")
    ffmpeg(*video, *sound, *texts, *image, *maps, *about, *codecs, *jpeg, "-c:s", "mov_text", mp4)
    return {".mkv": mkv, ".mp4": mp4}
