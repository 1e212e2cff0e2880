"""Sound in every container: copied byte for byte, or left out with a warning; it never ends a job."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import pytest

from runtime.sinks.video import SUFFIXES, VideoSink
from runtime.sources import open_source
from runtime.sources.base import PlanesSource
from tests.conftest import Survived, write_clip

FRAMES = 5
COMMON = ["aac", "ac3", "dca", "flac", "libmp3lame", "mp2", "opus", "pcm_s16le", "truehd"]
INPUTS = {"ts": "mpeg2video", "mkv": "mpeg4", "mov": "mpeg4", "avi": "mpeg4", "nut": "mpeg4", "ogv": "libtheora"}
"""Suffixes of sources, and a video codec for each."""


def ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        pytest.skip("no program to make sound with: apt install ffmpeg")
    return found


def sound_encoders() -> list[str]:
    """Return the names of all sound encoders of the ffmpeg command; none without the command."""
    if shutil.which("ffmpeg") is None:
        return []
    command = ["ffmpeg", "-hide_banner", "-v", "quiet", "-encoders"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.findall(r"^ A[A-Z.]{5} (\w+)", listed, re.MULTILINE)


def write_with_sound(path: Path, encoder: str) -> bool:
    """Write a clip with sound of an encoder; return False if the encoder or the container refuses every format."""
    sources = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=0.2", "-f", "lavfi", "-i", "sine=r=48000:d=0.2"]
    for rate, channels in ((48_000, 1), (44_100, 2), (22_050, 1), (8_000, 1)):
        encoders = ["-c:v", INPUTS[path.suffix[1:]], "-c:a", encoder, "-strict", "-2", "-ar", rate, "-ac", channels]
        command = [ffmpeg(), "-v", "quiet", "-y", *sources, *encoders, path]
        if subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0:
            return True
    return False


def copy_frames(source: Path, out: Path, *, planes: bool = False) -> list[str]:
    """Write all frames, as BGR or planes, and the sound of a source into a file; return the warnings of the sink."""
    out.unlink(missing_ok=True)
    with contextlib.closing(open_source(str(source))) as reader:
        if planes:
            assert isinstance(reader, PlanesSource)
            reader.deliver_planes()
        sink = VideoSink(out, reader.info)
        for frame in reader:
            sink.write(frame)
    assert sink.close(complete=True) == str(out)
    return sink.warnings


def read_sound(path: Path) -> bytes:
    """Return all packets of the first sound stream, without the headers that AAC has in a transport stream."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return b""
        is_adts = container.format.name == "mpegts" and container.streams.audio[0].codec_context.name == "aac"
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.dts is not None and packet.size]
    # 7 bytes, or 9 with a checksum
    return b"".join(packet[7 if packet[1] & 1 else 9 :] for packet in packets) if is_adts else b"".join(packets)


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def require_sound_kept_or_warned(source: Path, out: Path) -> bool:
    """Copy a clip and return whether its sound was kept; fail if it was neither kept whole nor left out."""
    warnings = [warning for warning in copy_frames(source, out) if "sound" in warning]  # others are about the frames
    assert count_frames(out) == FRAMES
    expected = read_sound(source)
    if not expected:
        return False
    if warnings:
        unknown, refused = "its codec is not known", rf"\w+ cannot be copied into {out.suffix}"
        assert re.fullmatch(f"sound left out: ({unknown}|{refused})", *warnings)
        assert read_sound(out) == b""
        return False
    assert read_sound(out) == expected
    return True


@pytest.mark.parametrize("encoder", COMMON)
def test_common_sound_is_kept_or_left_out(encoder: str, tmp_path: Path) -> None:
    kept = set()
    for suffix in ("ts", "mkv"):
        source = tmp_path / f"in.{suffix}"
        if write_with_sound(source, encoder):
            kept |= {out for out in SUFFIXES if require_sound_kept_or_warned(source, tmp_path / f"out{out}")}
    assert ".mkv" in kept
    if encoder in ("aac", "ac3", "libmp3lame"):
        assert {".mp4", ".mov"} <= kept


@pytest.mark.slow
@pytest.mark.parametrize("encoder", sound_encoders())
def test_every_sound_is_kept_or_left_out(encoder: str, tmp_path: Path) -> None:
    for suffix in INPUTS:
        source = tmp_path / f"in.{suffix}"
        if write_with_sound(source, encoder):
            for out in sorted(SUFFIXES):
                require_sound_kept_or_warned(source, tmp_path / f"out{out}")


@pytest.mark.fault("Files", "AAC of a transport stream", done="ADTS into MP4, MOV, M4V and Matroska")
@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_aac_of_a_transport_stream_plays(suffix: str, tmp_path: Path, survived: Survived) -> None:
    source, out = tmp_path / "in.ts", tmp_path / f"out{suffix}"
    write_clip(source, audio="aac", time_base=Fraction(1, 90_000), pts=[3600 * index for index in range(25)])
    assert copy_frames(source, out) == []
    counts = []
    for path in (source, out):
        with av.open(str(path)) as container:
            counts.append(sum(frame.samples for frame in container.decode(audio=0)))
    assert counts[0] == counts[1] > 40_000
    survived("copied byte for byte, in the form that the container wants", lost=0)


@pytest.mark.fault("Files", "unknown sound codec", done="a name that no codec has, in Matroska")
def test_sound_of_an_unknown_codec_is_left_out(tmp_path: Path, survived: Survived) -> None:
    source, out = tmp_path / "in.mkv", tmp_path / "out.mkv"
    write_clip(source, audio="aac")
    source.write_bytes(source.read_bytes().replace(b"A_AAC", b"A_QQQ"))
    assert copy_frames(source, out) == ["sound left out: its codec is not known"]
    assert count_frames(out) == 10
    survived("left out, with a warning", lost=0)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_sound_before_the_place_where_a_clip_was_cut_stays_out(suffix: str, tmp_path: Path) -> None:
    """MP4 keeps the packets before a cut and says that they are not played; Matroska cannot say it."""
    whole, cut, out = tmp_path / "whole.mp4", tmp_path / "cut.mp4", tmp_path / f"out{suffix}"
    sources = ["-f", "lavfi", "-i", "testsrc=s=64x48:r=25:d=4,format=yuv420p", "-f", "lavfi", "-i", "sine=r=48000:d=4"]
    subprocess.run([ffmpeg(), "-v", "error", *sources, "-g", "50", "-c:a", "aac", whole], check=True)
    subprocess.run([ffmpeg(), "-v", "error", "-ss", "1.5", "-i", whole, "-c", "copy", cut], check=True)
    with av.open(str(cut)) as container:
        assert sum(packet.is_discard for packet in container.demux(audio=0)) > 10
    assert copy_frames(cut, out) == []
    heard = subprocess.run(
        [ffmpeg(), "-v", "error", "-i", out, "-vn", "-f", "s16le", "-"], check=True, capture_output=True
    ).stdout
    assert len(heard) / 2 / 48_000 == pytest.approx(2.5, abs=0.05)
    first, *_ = open_source(str(out))
    assert float(first.pts * first.time_base) == pytest.approx(0, abs=0.05)
