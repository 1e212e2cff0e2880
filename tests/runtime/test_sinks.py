"""What is written is what was given: times, sound, sizes; and never a half file under the name."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from runtime.errors import OutputError, UsageError
from runtime.frame import Frame
from runtime.sinks import WindowSink, existing_output, open_sink
from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.sources.base import SourceInfo
from tests.conftest import Survived, picture, write_clip

RATE = Fraction(25)


def facts(time_base: Fraction = Fraction(1, 12_800), **more: object) -> SourceInfo:
    return SourceInfo(name="test", time_base=time_base, frame_rate=RATE, **more)


def frame_at(pts: int, time_base: Fraction = Fraction(1, 12_800), size: tuple[int, int] = (64, 48)) -> Frame:
    return Frame(pixels=picture(*size), pts=pts, time_base=time_base, captured_at=0.0)


def times_in(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.fault("Files", "uneven times", done="frames at a variable rate, late, at 29.97 fps, in milliseconds")
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 12_800), [512 * index for index in range(30)]),
        (Fraction(1, 90_000), [17, 3003, 7000, 7001, 20_000]),
        (Fraction(1001, 30_000), list(range(5, 40))),
        (Fraction(1, 1000), [0, 33, 67, 100, 1000, 1001]),
    ],
    ids=["constant", "variable", "late start", "milliseconds"],
)
def test_every_time_stamp_is_kept(
    tmp_path: Path, suffix: str, time_base: Fraction, pts: list[int], survived: Survived
) -> None:
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, facts(time_base))
    for stamp in pts:
        sink.write(frame_at(stamp, time_base))
    assert sink.close(complete=True) == str(path)
    tick = Fraction(1, 1000) if suffix == ".mkv" else time_base
    assert times_in(path) == pytest.approx(
        [stamp * time_base for stamp in pts], abs=float(tick) / (2 if suffix == ".mkv" else 1e6)
    )
    survived(f"{suffix}: kept {'to half a millisecond' if suffix == '.mkv' else 'to the tick'}", lost=0)


def sound_of(path: Path) -> list[tuple[int, bytes]]:
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.dts is not None]


def test_sound_is_copied_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    write_clip(source, audio="aac", pts=[512 * index for index in range(25)])
    sink = VideoSink(tmp_path / "out.mp4", facts(audio=source))
    for frame in open_source(str(source)):
        sink.write(frame)
    sink.close(complete=True)
    assert sink.warnings == []
    assert sound_of(tmp_path / "out.mp4") == sound_of(source)


@pytest.mark.fault("Files", "sound that the container cannot hold", done="MS ADPCM into MP4")
def test_sound_that_does_not_fit_is_left_out_and_told(tmp_path: Path, survived: Survived) -> None:
    source = tmp_path / "in.avi"
    write_clip(source, codec="mpeg4", audio="adpcm_ms", time_base=Fraction(1, 25), pts=list(range(10)))
    sink = VideoSink(tmp_path / "out.mp4", facts(Fraction(1, 25), audio=source))
    for stamp in range(10):
        sink.write(frame_at(stamp, Fraction(1, 25)))
    sink.close(complete=True)
    assert "adpcm_ms" in sink.warnings[0]
    assert len(times_in(tmp_path / "out.mp4")) == 10
    survived("left out, with a warning; sound that fits is copied byte for byte", lost=0)


@pytest.mark.fault("Files", "odd sizes", done="1x1, 33x21, 64x21 into H.264")
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (33, 21), (64, 21), (640, 360)])
def test_every_size_is_kept(tmp_path: Path, size: tuple[int, int], survived: Survived) -> None:
    sink = VideoSink(tmp_path / "out.mp4", facts())
    sink.write(frame_at(0, size=size))
    sink.close(complete=True)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == size
    assert bool(sink.warnings) == (size[0] % 2 == 1 or size[1] % 2 == 1)
    survived("kept, as 4:4:4, with a warning", lost=0)


def test_pictures_are_kept(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", facts())
    sink.write(frame_at(0, size=(320, 240)))
    sink.close(complete=True)
    written = next(iter(open_source(str(tmp_path / "out.mp4")))).pixels
    assert np.abs(written.astype(int) - picture(320, 240)).mean() < 2


def test_frames_that_change_size_are_scaled_and_told(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", facts())
    for index, size in enumerate([(64, 48), (128, 96), (32, 24)]):
        sink.write(frame_at(512 * index, size=size))
    sink.close(complete=True)
    assert "2 frames changed size" in sink.warnings[0]
    assert len(times_in(tmp_path / "out.mp4")) == 3


def test_unfinished_file_plays_under_a_name_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoSink(path, facts())
    for index in range(10):
        sink.write(frame_at(512 * index))
    assert not path.exists()
    assert sink.close(complete=False) == str(tmp_path / "out.partial.mp4")
    assert not path.exists()
    assert len(times_in(tmp_path / "out.partial.mp4")) == 10
    assert sink.close(complete=True) is None


def test_nothing_is_left_of_a_file_without_frames(tmp_path: Path) -> None:
    VideoSink(tmp_path / "out.mp4", facts()).close(complete=True)
    assert list(tmp_path.iterdir()) == []


def test_two_runs_on_one_output_are_refused(tmp_path: Path) -> None:
    first = VideoSink(tmp_path / "out.mp4", facts())
    with pytest.raises(OutputError, match="another run"):
        VideoSink(tmp_path / "out.mp4", facts())
    first.close(complete=False)


def test_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write output"):
        VideoSink(tmp_path / "file" / "out.mp4", facts())


@pytest.mark.fault("Files", "disk full", done="a disk of one megabyte")
def test_full_disk_keeps_what_was_written(disk: Callable[[int], Path], survived: Survived) -> None:
    place = disk(1024)
    sink = VideoSink(place / "out.mp4", facts())
    noise = np.random.default_rng(0)
    written = 0
    with pytest.raises(OutputError, match="No space left"):
        for written in range(200):
            pixels = noise.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            sink.write(dataclasses.replace(frame_at(512 * written), pixels=pixels))
    assert sink.close(complete=False) == str(place / "out.partial.mp4")
    assert not (place / "out.mp4").exists()
    with contextlib.closing(open_source(str(place / "out.partial.mp4"))) as kept:
        assert 10 <= len(list(kept)) <= written
    survived("what was written plays", code=6, lost=0)


def test_pictures_into_a_folder_keep_their_names(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out"), facts(frame_count=2))
    sink.write(dataclasses.replace(frame_at(0), name="first"))
    sink.write(frame_at(1))
    sink.write(dataclasses.replace(frame_at(2), name="first"))
    assert sink.close(complete=True) == str(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["first.png", "first_2.png", "frame_000002.png"]
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "first.png")), picture(64, 48))


def test_single_picture(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.jpg"), facts(frame_count=1))
    sink.write(frame_at(0))
    sink.close(complete=True)
    assert cv2.imread(str(tmp_path / "out.jpg")).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("name", "reason"), [("a.xyz", "kind .xyz"), ("a.png", "several frames"), ("in.mp4", "is the source")]
)
def test_outputs_that_make_no_sense(tmp_path: Path, name: str, reason: str) -> None:
    source = facts(frame_count=10, files=(tmp_path / "in.mp4",))
    with pytest.raises(UsageError, match=reason):
        open_sink(str(tmp_path / name), source)
    assert list(tmp_path.iterdir()) == []


def test_folder_of_the_source_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the source"):
        open_sink(str(tmp_path), facts(files=(tmp_path / "a.png",)))


def test_what_is_existing_output(tmp_path: Path) -> None:
    assert existing_output(str(tmp_path / "a.mp4")) is None
    assert existing_output(str(tmp_path)) is None
    (tmp_path / "a.partial.mp4").touch()
    assert existing_output(str(tmp_path / "a.mp4")) == tmp_path / "a.partial.mp4"
    assert existing_output(str(tmp_path)) == tmp_path
    assert existing_output("null") is None


def test_no_screen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="no screen"):
        WindowSink()


@pytest.mark.needs_screen
def test_window_shows_frames_until_it_is_closed() -> None:
    window = WindowSink()
    quits: list[int] = []
    window.on_quit = lambda: quits.append(1)
    window.write(frame_at(0))
    assert quits == []
    cv2.destroyAllWindows()
    cv2.waitKey(1)
    window.close(complete=True)
