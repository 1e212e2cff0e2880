"""Video files whose containers or names are unusual: each is read with its times, or refused in one line."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from runtime.errors import UsageError
from runtime.sinks import open_sink
from runtime.sinks.encoder_settings import EncoderSettings
from runtime.sources.video import VideoSource
from runtime.video import main
from tests.conftest import make_image, write_clip


def seconds_of(path: Path) -> list[Fraction]:
    source = VideoSource(path)
    seconds = [frame.pts * frame.time_base for frame in source]
    assert source.damage is None
    assert source.warnings == []
    return seconds


def test_a_matroska_file_that_starts_late_is_whole(tmp_path: Path) -> None:
    seconds = write_clip(tmp_path / "a.mkv", time_base=Fraction(1, 1000), pts=[2000 + 40 * i for i in range(10)])
    assert seconds_of(tmp_path / "a.mkv") == seconds


def test_frames_of_avi_with_b_frames_are_evenly_spaced(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.avi", time_base=Fraction(1, 25), pts=list(range(20)))
    seconds = seconds_of(tmp_path / "a.avi")
    assert len(seconds) == 20
    assert set(np.diff(seconds)) == {Fraction(1, 25)}


def test_raw_dv_has_the_rate_of_its_frames(tmp_path: Path) -> None:
    """FFmpeg states the ticks of its clock as the average rate."""
    write_clip(
        tmp_path / "a.dv",
        size=(720, 576),
        time_base=Fraction(1, 25),
        pts=list(range(3)),
        codec="dvvideo",
        pix_fmt="yuv420p",
    )
    assert VideoSource(tmp_path / "a.dv").info.frame_rate == 25


def test_a_name_with_a_colon_is_a_file(tmp_path: Path, invert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(Path("12:30:00.mp4").absolute())
    assert main(["--engine", str(invert), "--source", "12:30:00.mp4", "--out", "b:1.mp4"]) == 0
    assert len(seconds_of(Path("b:1.mp4"))) == 10


def test_m4v_holds_h264_only(clip: Path, tmp_path: Path) -> None:
    source = VideoSource(clip)
    with pytest.raises(UsageError, match=r"M4V holds H\.264 only"):
        open_sink(str(tmp_path / "b.m4v"), source.info, encoder=EncoderSettings(codec="hevc"))
    source.close()


def test_an_image_whose_name_is_not_utf8_is_restored(tmp_path: Path, invert: Path) -> None:
    _, encoded = cv2.imencode(".png", make_image(8, 8))
    source, out = tmp_path / "n\udce9.png", tmp_path / "o\udce9.png"
    source.write_bytes(encoded.tobytes())
    assert main(["--engine", str(invert), "--source", str(source), "--out", str(out)]) == 0
    assert out.stat().st_size > 0


def test_long_subtitles_become_text_of_mp4_with_their_times(tmp_path: Path, invert: Path) -> None:
    """FFmpeg aborted at the second cue, and showed a cue until the next."""
    write_clip(tmp_path / "video.mkv", time_base=Fraction(1, 1000), pts=list(range(0, 10_000, 40)))
    (tmp_path / "a.srt").write_text(
        "1\n00:00:02,000 --> 00:00:05,000\nA\n\n"
        "2\n00:00:06,000 --> 00:00:08,000\nB\n\n"
        "3\n00:00:07,500 --> 00:00:09,000\nC\n\n"
    )
    with (
        av.open(str(tmp_path / "video.mkv")) as video,
        av.open(str(tmp_path / "a.srt")) as text,
        av.open(str(tmp_path / "a.mkv"), "w") as container,
    ):
        copies = [container.add_stream_from_template(file.streams[0]) for file in (video, text)]
        for file, copy in zip((video, text), copies, strict=True):
            for packet in file.demux():
                if packet.size:
                    packet.stream = copy
                    container.mux(packet)
    assert main(["--engine", str(invert), "--source", str(tmp_path / "a.mkv"), "--out", str(tmp_path / "b.mp4")]) == 0
    with av.open(str(tmp_path / "b.mp4")) as container:
        shown = [
            (float(packet.pts * packet.time_base), float(packet.duration * packet.time_base), bytes(packet)[2:])
            for packet in container.demux(container.streams.subtitles)
            if packet.size > 2
        ]
    assert shown == [(2.0, 3.0, b"A"), (6.0, 1.5, b"B"), (7.5, 1.5, b"C")]
