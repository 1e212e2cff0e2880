"""Clocks that begin below zero, wrap or jump: every frame that was written plays, and sound stays in step."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.format import Flags

from runtime.colour import BT709
from runtime.errors import InputError
from runtime.frame import Frame
from runtime.sinks.video import SUFFIXES, VideoSink
from runtime.sources import open_source
from runtime.sources.base import SourceInfo
from runtime.sources.timeline import Timeline
from runtime.video import main
from runtime.yuv420 import Yuv420
from tests.conftest import Survived, make_image, write_clip
from tests.runtime.test_odd_files import arguments
from tests.runtime.test_sound import copy_frames, count_frames

TICKS = 90_000
WRAP_S = Fraction(2**33, TICKS)
SECONDS = 4
SOUND_RATE = 48_000


def write_broadcast(path: Path, *, start_s: Fraction = Fraction(0), fps: int = 25, seconds: int = SECONDS) -> bytes:
    """Write a transport stream with sound whose clock begins at a time, and return its content."""
    with av.open(str(path), "w", format="mpegts") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "g": "10", "bf": "2"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for index in range(fps * seconds):
            frame = av.VideoFrame.from_ndarray(make_image(64, 48, seed=index), format="bgr24")
            frame.pts, frame.time_base = int(start_s * TICKS) + index * TICKS // fps, Fraction(1, TICKS)
            container.mux(video.encode(frame))
            samples = av.AudioFrame.from_ndarray(
                np.zeros((1, SOUND_RATE // fps), np.float32), format="fltp", layout="mono"
            )
            samples.sample_rate, samples.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
            samples.pts = int(start_s * SOUND_RATE) + index * SOUND_RATE // fps
            container.mux(sound.encode(samples))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    return path.read_bytes()


def read_times(path: Path, kind: str) -> list[float]:
    """Return the start of every frame or sound packet in seconds."""
    with av.open(str(path)) as container:
        if kind == "video":
            return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
        return [float(packet.pts * packet.time_base) for packet in container.demux(audio=0) if packet.dts is not None]


JOINED = {
    "wraps soon": [WRAP_S - 2],
    "in the wrong order": [Fraction(4), Fraction(0)],
    "in the wrong order, far": [Fraction(400), Fraction(0)],
    "the same twice": [Fraction(0), Fraction(0)],
    "a gap of minutes": [Fraction(0), Fraction(300)],
}
"""Clocks at the beginning of each part of a joined stream, in seconds."""


@pytest.mark.fault("Files", "a clock that wraps or jumps", done="2^33 / 90000 s; joined transport streams")
@pytest.mark.parametrize("suffix", sorted(SUFFIXES - {".m4v"}))
@pytest.mark.parametrize("kind", JOINED)
def test_every_frame_plays_after_a_wrap_or_jump(kind: str, suffix: str, tmp_path: Path, survived: Survived) -> None:
    source, out = tmp_path / "in.ts", tmp_path / f"out{suffix}"
    parts = [write_broadcast(tmp_path / "part.ts", start_s=start) for start in JOINED[kind]]
    source.write_bytes(b"".join(parts))
    warnings = copy_frames(source, out)
    assert not [warning for warning in warnings if "ends early" in warning or "cannot" in warning]
    times, sound = (read_times(out, stream) for stream in ("video", "audio"))
    assert len(times) == len(parts) * 25 * SECONDS
    assert min(times) >= 0
    assert np.diff(times).min() > 0.035
    assert np.diff(times).max() < 0.3
    assert np.diff(sound).max() < 0.3
    assert sound[0] == pytest.approx(times[0], abs=0.1)
    assert sound[-1] == pytest.approx(times[-1], abs=0.1)
    survived("every frame plays, and sound stays in step", lost=0)


@pytest.mark.parametrize("planes", [False, True])
def test_a_wrap_in_the_middle_changes_nothing(planes: bool, tmp_path: Path) -> None:
    source, start = tmp_path / "in.ts", int(WRAP_S) - 80
    write_broadcast(source, start_s=Fraction(start), fps=2, seconds=100)
    assert copy_frames(source, tmp_path / "out.mp4", planes=planes) == []
    assert read_times(tmp_path / "out.mp4", "video") == pytest.approx([start + index / 2 for index in range(200)])


@pytest.mark.parametrize("planes", [False, True])
def test_matroska_files_that_were_joined(planes: bool, tmp_path: Path) -> None:
    source, out = tmp_path / "in.mkv", tmp_path / "out.mp4"
    write_clip(source, pts=[512 * index for index in range(150)], audio="aac")  # longer than FFmpeg may reorder
    source.write_bytes(2 * source.read_bytes())
    copy_frames(source, out, planes=planes)
    times = read_times(out, "video")
    assert len(times) == 300
    assert np.diff(times).min() > 0.03


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
@pytest.mark.parametrize("first", [-1, -12_800, -(2**40)])
@pytest.mark.parametrize("planes", [False, True])
def test_frames_before_zero_play(planes: bool, first: int, suffix: str, tmp_path: Path) -> None:
    """The sink takes frames from any program."""
    time_base = Fraction(1, 12_800)
    sink = VideoSink(tmp_path / f"out{suffix}", SourceInfo(name="", time_base=time_base, frame_rate=Fraction(25)))
    for index in range(30):
        image = make_image(64, 48, seed=index)
        pixels = Yuv420.from_bgr(image, BT709) if planes else image
        sink.write(Frame(pixels=pixels, pts=first + 512 * index, time_base=time_base, captured_at=0.0))
    sink.close(complete=True)
    assert read_times(tmp_path / f"out{suffix}", "video") == pytest.approx([index / 25 for index in range(30)])


def placed(times_s: list[float], *, is_broadcast: bool = True, start_s: float = 0.0) -> tuple[list[float], Timeline]:
    """Return the decoding times of packets of one stream after a timeline has placed them, a second each."""
    flags = Flags.ts_discont.value if is_broadcast else 0
    container = SimpleNamespace(start_time=round(start_s * av.time_base), format=SimpleNamespace(flags=flags))
    timeline = Timeline(container)  # type: ignore[arg-type]
    result = []
    for time_s in times_s:
        packet = SimpleNamespace(
            stream=SimpleNamespace(type="video", index=0),
            pts=round(time_s * 1000),
            dts=round(time_s * 1000),
            duration=1000,
            time_base=Fraction(1, 1000),
        )
        timeline.place(packet)  # type: ignore[arg-type]
        result.append(packet.dts / 1000)
    return result, timeline


@pytest.mark.parametrize("odd", [-50, 0, 4000, 90_000])
def test_a_single_odd_time_moves_no_other_packet(odd: float) -> None:
    times, timeline = placed([5, 6, 7, odd, 9, 10])
    assert times == [5, 6, 7, 8, 9, 10]
    assert timeline.jumps == 0


@pytest.mark.parametrize("is_broadcast", [True, False])
def test_packets_after_a_jump_follow_those_before(is_broadcast: bool) -> None:
    times, timeline = placed([100, 101, 3, 4, 5], is_broadcast=is_broadcast)
    assert times == [100, 101, 102, 103, 104]
    assert timeline.jumps == 1


def test_a_gap_is_closed_only_in_formats_whose_clock_may_jump() -> None:
    assert placed([0, 1, 100, 101])[0] == [0, 1, 2, 3]
    assert placed([0, 1, 100, 101], is_broadcast=False)[0] == [0, 1, 100, 101]
    assert placed([0, 1, 10, 11])[0] == [0, 1, 10, 11]


def test_times_below_zero_are_moved() -> None:
    assert placed([-2, -1, 0, 1], start_s=-2)[0] == [0, 1, 2, 3]
    assert placed([2, 3], start_s=2)[0] == [2, 3]


@pytest.mark.fault("Files", "unknown video codec", done="MP4, Matroska and AVI")
@pytest.mark.parametrize(
    ("suffix", "codec", "name", "other"),
    [
        (".mp4", "libx264", b"avc1", b"zzzz"),
        (".mkv", "libx264", b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/QQQ"),
        (".avi", "mpeg4", b"FMP4", b"ZZZZ"),
    ],
)
def test_video_of_an_unknown_codec_is_refused(
    suffix: str,
    codec: str,
    name: bytes,
    other: bytes,
    invert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    survived: Survived,
) -> None:
    source = tmp_path / f"in{suffix}"
    write_clip(source, codec=codec, pts=list(range(5)), time_base=Fraction(1, 25))
    source.write_bytes(source.read_bytes().replace(name, other))
    with pytest.raises(InputError, match="codec of the video is not known"):
        open_source(str(source))
    assert main(arguments(invert, source, tmp_path / "out.mp4")) == 3
    assert capsys.readouterr().err.count("error: the codec of the video is not known") == 1
    survived("refused in one line; nothing is written", code=3)


def test_a_second_video_stream_is_read_if_the_codec_of_the_first_is_unknown(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        streams = [container.add_stream(codec, rate=25) for codec in ("mpeg4", "libx264")]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(5):
            for stream in streams:
                frame = av.VideoFrame.from_ndarray(make_image(64, 48), format="bgr24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    source.write_bytes(source.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_MPEG4/ISO/QQQ"))
    copy_frames(source, tmp_path / "out.mp4")
    assert count_frames(tmp_path / "out.mp4") == 5
