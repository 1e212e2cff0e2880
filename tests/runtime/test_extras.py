"""Subtitles, chapters, attachments, further tracks and tags of a file are kept, or a warning names them."""

from __future__ import annotations

import errno
import io
from pathlib import Path

import av
import cv2
import pytest
from av.error import InvalidDataError
from av.stream import Disposition

from runtime.sinks.mp4_cover import add_covers
from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.video import main
from tests.conftest import make_image, write_clip
from tests.rig.media import CHAPTERS, TAGS, ffmpeg, make_rich


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_rich(tmp_path_factory.mktemp("rich"))


def run(source: Path, out: Path, engine: Path, *options: object) -> int:
    command = ["--source", source, "--out", out, "--engine", engine, "--guard", "off", "--provider", "cpu"]
    return main([str(word) for word in (*command, "--threads", 1, *options)])


def tags_of(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return {key.lower(): value for key, value in container.metadata.items()}


def chapters_of(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        return [
            (
                float(item["start"] * item["time_base"]),
                float(item["end"] * item["time_base"]),
                item["metadata"]["title"],
            )
            for item in container.chapters()
            if item["time_base"]
        ]


def tracks_of(path: Path) -> list[tuple[str, str | None, str | None, bool]]:
    """Return kind, language and title of the tracks that a player offers, and whether each is a commentary."""
    with av.open(str(path)) as container:
        return [
            (
                stream.type,
                stream.language,
                stream.metadata.get("title", stream.metadata.get("name")),
                bool(stream.disposition & Disposition.comment),
            )
            for stream in container.streams
            if stream.type in {"audio", "subtitle"}
        ]


def subtitles_of(path: Path) -> list[tuple[float, float, bytes]]:
    """Return start, duration and content of each subtitle; MP4 has empty ones in the gaps."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.subtitles) if packet.size > 2]
        return [
            (round(float(p.pts * p.time_base), 1), round(float(p.duration * p.time_base), 1), bytes(p)) for p in packets
        ]


def texts_of(path: Path) -> list[tuple[float, float, str]]:
    """Return start, duration and text of each subtitle, as a player shows it."""
    with av.open(str(path)) as container:
        texts = []
        for packet in container.demux(container.streams.subtitles):
            shown = packet.stream.codec_context.decode2(packet) if packet.size else None
            for rect in shown or ():
                times = (round(float(ticks * packet.time_base), 1) for ticks in (packet.pts, packet.duration))
                texts.append((*times, rect.dialogue.decode()))
        return texts


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().err.splitlines()
    return [line.removeprefix("warning: ") for line in lines if line.startswith("warning: ")]


SOUND = [("audio", "eng", None, False), ("audio", "fra", "Commentary", True)]
SUBTITLES = [("subtitle", "spa", None, False)]
NOT_HELD = "left out, because the output cannot hold them: "


@pytest.mark.parametrize(
    ("source", "suffix", "warnings"),
    [
        (".mkv", ".mkv", []),
        (".mp4", ".mp4", []),
        (".mkv", ".mp4", [NOT_HELD + "attachment font.ttf"]),
        (".mp4", ".mkv", []),
        (".mp4", ".mov", [NOT_HELD + "cover (mjpeg)"]),
    ],
)
def test_what_a_container_can_hold_is_kept(
    source: str,
    suffix: str,
    warnings: list[str],
    rich: dict[str, Path],
    invert: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / f"out{suffix}"
    assert run(rich[source], out, invert) == 0
    assert warnings_of(capsys) == warnings
    assert TAGS.items() - {("creation_time", "")} <= tags_of(out).items()
    assert chapters_of(out) == CHAPTERS
    if suffix != ".mov":  # MOV holds no titles and purposes of tracks
        assert tracks_of(out) == SOUND + SUBTITLES
    if (source, suffix) in ((".mkv", ".mkv"), (".mp4", ".mp4"), (".mp4", ".mov")):
        assert subtitles_of(out) == subtitles_of(rich[source])
    assert texts_of(out) == texts_of(rich[source])
    assert [text for _, _, text in texts_of(out)] == ["Hello"]


STYLED = """[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, Bold
Style: Default,Arial,16,&Hffffff,0
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:00:00.10,0:00:00.30,Default,,0,0,0,,{\\pos(10,20)}One\\Ntwo
Dialogue: 0,0:00:00.60,0:00:00.80,Default,,0,0,0,,Zwei \u00e4
"""


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_styled_subtitles_become_plain_and_a_line_says_so(
    suffix: str, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "styled.ass").write_text(STYLED)
    write_clip(tmp_path / "clip.mp4", pts=[6400 * index for index in range(3)])
    source, out = tmp_path / "in.mkv", tmp_path / f"out{suffix}"
    ffmpeg("-i", tmp_path / "clip.mp4", "-i", tmp_path / "styled.ass", "-c:v", "copy", "-c:s", "copy", source)
    assert run(source, out, invert) == 0
    assert warnings_of(capsys) == ["fonts, places and effects of subtitles left out: subtitles (ass)"]
    assert texts_of(out) == [(0.1, 0.2, "One\ntwo"), (0.6, 0.2, "Zwei \u00e4")]


def test_damaged_subtitles_are_counted(rich: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise InvalidDataError(1, "damaged")

    source = open_source(str(rich[".mkv"]))
    monkeypatch.setattr("runtime.sinks.subtitles.ConvertedSubtitles.convert", fail)
    sink = VideoSink(tmp_path / "out.mp4", source.info)
    for frame in source:
        sink.write(frame)
    sink.close(complete=True)
    assert any(line.startswith("1 packets of subtitles or data") for line in sink.warnings)


def test_attachments_and_covers_are_kept(rich: dict[str, Path], invert: Path, tmp_path: Path) -> None:
    cover = (rich[".mkv"].parent / "cover.jpg").read_bytes()
    for source, suffix in ((".mkv", ".mkv"), (".mp4", ".mkv"), (".mp4", ".mp4"), (".mkv", ".mp4"), (".mkv", ".m4v")):
        out = tmp_path / f"{source[1:]}{suffix}"
        assert run(rich[source], out, invert) == 0
        with av.open(str(out)) as container:
            images = [stream for stream in container.streams.video if stream.disposition & Disposition.attached_pic]
            assert [bytes(next(container.demux(image))) for image in images] == [cover]
            assert len(container.streams.video) == 2
            fonts = [stream for stream in container.streams if stream.type == "attachment"]
            assert [stream.metadata["filename"] for stream in fonts] == ["font.ttf"] * (
                (source, suffix).count(".mkv") == 2
            )
        assert len(list(open_source(str(out)))) == 10
        assert sorted(tmp_path.glob("*.partial*")) == []


@pytest.mark.parametrize("tags", [(), ("-metadata", "firmware=1")], ids=["plain", "tagged"])
def test_a_cover_beside_tags_of_any_name_is_left_out(
    tags: tuple[str, ...], invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """MP4 holds either covers or tags of any name."""
    write_clip(tmp_path / "clip.mp4")
    (tmp_path / "cover.png").write_bytes(cv2.imencode(".png", make_image(32, 32))[1].tobytes())
    source, out = tmp_path / "in.mkv", tmp_path / "out.mp4"
    cover = ("-attach", tmp_path / "cover.png", "-metadata:s:t", "mimetype=image/png")
    ffmpeg("-i", tmp_path / "clip.mp4", *cover, "-c", "copy", *tags, source)
    assert run(source, out, invert) == 0
    assert warnings_of(capsys) == ([NOT_HELD + "cover (png)"] if tags else [])
    assert (tags_of(out).get("firmware") == "1") == bool(tags)


@pytest.mark.parametrize("content", [b"", b"short", bytes(64), b"\0\0\0\x10moov" + bytes(8), b"\0\0\0\x63moov"])
def test_a_file_without_a_place_for_a_cover_is_left_as_it_is(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.mp4"
    path.write_bytes(content)
    assert not add_covers(path, [("mjpeg", b"image")])
    assert path.read_bytes() == content


def test_a_full_disk_leaves_the_file_without_a_cover(
    rich: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, content: object) -> int:
            super().write(bytes(content)[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "clip.mp4"
    ffmpeg("-i", rich[".mp4"], "-map", "0:0", "-c", "copy", path)
    before = path.read_bytes()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Path, "open", lambda self, mode, buffering: Full(self, mode.replace("b", "")))
        add_covers(path, [("mjpeg", b"image")])
    assert path.read_bytes() == before


def test_an_output_has_no_titles_of_chapters_as_subtitles(rich: dict[str, Path], invert: Path, tmp_path: Path) -> None:
    timed = tmp_path / "timed.mov"
    ffmpeg("-i", rich[".mp4"], "-map", "0:v:0", "-map", "0:a", "-c", "copy", "-timecode", "01:00:00:00", timed)
    for suffix in (".mov", ".mp4", ".mkv"):
        assert run(timed, tmp_path / f"out{suffix}", invert) == 0
        assert [track[0] for track in tracks_of(tmp_path / f"out{suffix}")] == ["audio", "audio"]
        assert chapters_of(tmp_path / f"out{suffix}") == CHAPTERS


def test_a_timecode_is_kept(tmp_path: Path, invert: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    ffmpeg("-i", tmp_path / "clip.mp4", "-c", "copy", "-timecode", "01:02:03:04", tmp_path / "timed.mov")
    assert run(tmp_path / "timed.mov", tmp_path / "out.mov", invert) == 0
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.video[0].metadata["timecode"] == "01:02:03:04"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_tags_of_no_ordinary_form_are_kept(suffix: str, tmp_path: Path, invert: Path) -> None:
    write_clip(tmp_path / "clip.mp4")
    tags = {"com.android.version": "11", "firmware": "HD7.01", "title": "My trip"}
    words = [word for key, value in tags.items() for word in ("-metadata", f"{key}={value}")]
    source = tmp_path / "phone.mp4"
    ffmpeg("-i", tmp_path / "clip.mp4", "-c", "copy", "-movflags", "use_metadata_tags", *words, source)
    assert run(source, tmp_path / f"out{suffix}", invert) == 0
    assert tags.items() <= tags_of(tmp_path / f"out{suffix}").items()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_resumed_job_has_the_same_extras(suffix: str, rich: dict[str, Path], tmp_path: Path) -> None:
    """A chunk of five seconds is complete in the unfinished file of a longer copy."""
    long = tmp_path / f"long{suffix}"
    ffmpeg("-stream_loop", 11, "-i", rich[suffix], "-map", "0:v:0", "-map", "0:a", "-map", "0:s", "-c", "copy", long)
    for name, stop in (("whole", None), ("resumed", 80)):
        out = tmp_path / f"{name}{suffix}"
        if stop:
            source = open_source(str(long))
            sink = VideoSink(out, source.info, job="test")
            for _, frame in zip(range(stop), source, strict=False):
                sink.write(frame)
            sink.close(complete=False)
        source = open_source(str(long))
        sink = VideoSink(out, source.info, job="test")
        done = sink.resume(source.start)
        assert (done > 0) == (stop is not None)
        if done:
            source.skip(done)
        for frame in source:
            sink.write(frame)
        sink.close(complete=True)
    assert subtitles_of(tmp_path / f"resumed{suffix}") == subtitles_of(tmp_path / f"whole{suffix}")
    assert len(subtitles_of(tmp_path / f"whole{suffix}")) == 12
    assert chapters_of(tmp_path / f"resumed{suffix}") == chapters_of(tmp_path / f"whole{suffix}")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_pyav_complains_about_no_option(
    suffix: str, rich: dict[str, Path], invert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(rich[".mkv"], tmp_path / f"out{suffix}", invert) == 0
    assert caplog.messages == []


def test_segments_say_what_they_leave_out(
    rich: dict[str, Path], invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(rich[".mkv"], tmp_path / "out.mkv", invert, "--segment-s", 0.5) == 0
    expected = ["sound is left out of segments", "subtitles, chapters and tags are left out of segments"]
    assert warnings_of(capsys) == expected
