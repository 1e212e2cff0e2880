"""Files that sinks write: time stamps, sound, sizes, names, and outputs that are refused."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
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
from runtime.sinks.screen import SMALL_SCREEN, _read_screen_size, fit_screen
from runtime.sinks.video import VideoSink
from runtime.sources import open_source
from runtime.sources.base import SourceInfo
from runtime.video import main
from tests.conftest import Survived, make_image, write_clip

RATE = Fraction(25)


def source_info(time_base: Fraction = Fraction(1, 12_800), **more: object) -> SourceInfo:
    return SourceInfo(name="test", time_base=time_base, frame_rate=RATE, **more)


def frame_at(pts: int, time_base: Fraction = Fraction(1, 12_800), size: tuple[int, int] = (64, 48)) -> Frame:
    return Frame(pixels=make_image(*size), pts=pts, time_base=time_base, captured_at=0.0)


def read_times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


@pytest.mark.fault("Files", "uneven time stamps", done="variable rate, late start, 29.97 fps, milliseconds")
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 12_800), [512 * index for index in range(30)]),
        (Fraction(1, 90_000), [17, 3003, 7000, 7100, 20_000]),
        (Fraction(1001, 30_000), list(range(5, 40))),
        (Fraction(1, 1000), [0, 33, 67, 100, 1000, 1001]),
    ],
    ids=["constant", "variable", "late start", "milliseconds"],
)
def test_every_time_stamp_is_kept(
    tmp_path: Path, suffix: str, time_base: Fraction, pts: list[int], survived: Survived
) -> None:
    path = tmp_path / f"out{suffix}"
    sink = VideoSink(path, source_info(time_base))
    for stamp in pts:
        sink.write(frame_at(stamp, time_base))
    assert sink.close(complete=True) == str(path)
    tick = Fraction(1, 1000) if suffix == ".mkv" else time_base
    assert read_times(path) == pytest.approx(
        [stamp * time_base for stamp in pts], abs=float(tick) / (2 if suffix == ".mkv" else 1e6)
    )
    survived(f"{suffix}: {'exact to 0.5 ms' if suffix == '.mkv' else 'exact'}", lost=0)


def read_sound(path: Path) -> list[tuple[int, bytes]]:
    """Return the time stamp and the content of each packet of sound."""
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.dts is not None]


def test_sound_is_copied_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    write_clip(source, audio="aac", pts=[512 * index for index in range(25)])
    sink = VideoSink(tmp_path / "out.mp4", source_info(audio=source))
    for frame in open_source(str(source)):
        sink.write(frame)
    sink.close(complete=True)
    assert sink.warnings == []
    assert read_sound(tmp_path / "out.mp4") == read_sound(source)


@pytest.mark.fault("Files", "sound that the container cannot hold", done="MS ADPCM into MP4")
def test_sound_that_the_container_cannot_hold_is_left_out_with_a_warning(tmp_path: Path, survived: Survived) -> None:
    source = tmp_path / "in.avi"
    write_clip(source, codec="mpeg4", audio="adpcm_ms", time_base=Fraction(1, 25), pts=list(range(10)))
    sink = VideoSink(tmp_path / "out.mp4", source_info(Fraction(1, 25), audio=source))
    for stamp in range(10):
        sink.write(frame_at(stamp, Fraction(1, 25)))
    sink.close(complete=True)
    assert "adpcm_ms" in sink.warnings[0]
    assert len(read_times(tmp_path / "out.mp4")) == 10
    survived("left out, with a warning; sound that fits is copied byte for byte", lost=0)


@pytest.mark.fault("Files", "odd sizes", done="1x1, 33x21, 64x21 into H.264")
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (33, 21), (64, 21), (640, 360)])
def test_every_size_is_kept(tmp_path: Path, size: tuple[int, int], survived: Survived) -> None:
    sink = VideoSink(tmp_path / "out.mp4", source_info())
    sink.write(frame_at(0, size=size))
    sink.close(complete=True)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height) == size
    assert bool(sink.warnings) == (size[0] % 2 == 1 or size[1] % 2 == 1)
    survived("kept, as 4:4:4, with a warning", lost=0)


def test_frames_too_large_for_h264_are_refused_with_the_limit(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", source_info())
    with pytest.raises(OutputError, match=r"16400x2 are too large for H\.264, which holds 16384") as refusal:
        sink.write(frame_at(0, size=(16_400, 2)))
    assert "free space" not in refusal.value.hint
    assert sink.close(complete=False) is None
    assert list(tmp_path.iterdir()) == []


def test_images_too_large_for_their_format_are_refused_with_their_size(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.webp"), source_info(frame_count=1))
    with pytest.raises(OutputError, match=r"17000x2 pixels cannot be written as \.webp"):
        sink.write(frame_at(0, size=(17_000, 2)))


def test_pixels_are_kept(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", source_info())
    sink.write(frame_at(0, size=(320, 240)))
    sink.close(complete=True)
    written = next(iter(open_source(str(tmp_path / "out.mp4")))).pixels
    assert np.abs(written.astype(int) - make_image(320, 240)).mean() < 2


def test_frames_that_change_size_are_scaled_with_a_warning(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "out.mp4", source_info())
    for index, size in enumerate([(64, 48), (128, 96), (32, 24)]):
        sink.write(frame_at(512 * index, size=size))
    sink.close(complete=True)
    assert "2 frames changed size" in sink.warnings[0]
    assert len(read_times(tmp_path / "out.mp4")) == 3


def test_a_second_run_on_the_same_output_is_refused(tmp_path: Path) -> None:
    first = VideoSink(tmp_path / "out.mp4", source_info())
    with pytest.raises(OutputError, match="another run"):
        VideoSink(tmp_path / "out.mp4", source_info())
    first.close(complete=False)


@pytest.mark.fault("Files", "disk full", done="a disk of 1 MiB")
def test_a_full_disk_keeps_the_frames_before(disk: Callable[[int], Path], survived: Survived) -> None:
    place = disk(1024)
    sink = VideoSink(place / "out.mp4", source_info())
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


def test_frames_of_a_video_are_numbered_in_a_folder(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/out/", source_info(frame_count=2))
    sink.write(frame_at(0))
    sink.write(frame_at(1))
    assert sink.close(complete=True) == str(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["frame_000001.png", "frame_000002.png"]
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "frame_000001.png")), make_image(64, 48))


def test_a_single_image_is_written_in_the_format_of_its_name(tmp_path: Path) -> None:
    sink = open_sink(str(tmp_path / "out.jpg"), source_info(frame_count=1))
    sink.write(frame_at(0))
    sink.close(complete=True)
    assert cv2.imread(str(tmp_path / "out.jpg")).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("name", "reason"), [("a.xyz", "kind .xyz"), ("a.png", "several frames"), ("in.mp4", "is the source")]
)
def test_an_output_that_makes_no_sense_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    source = source_info(frame_count=10, files=(tmp_path / "in.mp4",))
    with pytest.raises(UsageError, match=reason):
        open_sink(str(tmp_path / name), source)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_the_source_is_refused_as_output(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is the source"):
        open_sink(str(tmp_path), source_info(files=(tmp_path / "a.png",)))


def test_existing_outputs_are_found(tmp_path: Path) -> None:
    assert existing_output(str(tmp_path / "a.mp4")) is None
    assert existing_output(str(tmp_path)) is None
    (tmp_path / "a.partial.mp4").touch()
    assert existing_output(str(tmp_path / "a.mp4")) is None, "an empty partial file holds nothing to lose"
    (tmp_path / "a.partial.mp4").write_bytes(b"frames")
    assert existing_output(str(tmp_path / "a.mp4")) == tmp_path / "a.partial.mp4"
    assert existing_output(str(tmp_path)) == tmp_path
    assert existing_output("null") is None


def test_a_missing_screen_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="no screen"):
        WindowSink()


@pytest.mark.needs_screen
def test_a_window_that_is_closed_calls_on_quit() -> None:
    window = WindowSink()
    calls: list[int] = []
    window.on_quit = lambda: calls.append(1)
    window.write(frame_at(0))
    assert calls == []
    cv2.destroyAllWindows()
    cv2.waitKey(1)
    window.close(complete=True)


@pytest.mark.parametrize(
    ("screen", "size", "window"),
    [
        ((1920, 1080), (1280, 720), (1280, 720)),
        ((1280, 720), (3840, 1080), (1152, 324)),
        ((3840, 1080), (3840, 1080), (1728, 486)),  # two monitors
        ((800, 480), (720, 1280), (243, 432)),
        (None, (1280, 720), (1152, 648)),
        ((1280, 720), (30_000, 1), (1152, 1)),
    ],
)
def test_a_window_fits_the_screen(
    screen: tuple[int, int] | None, size: tuple[int, int], window: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.sinks.screen._read_screen_size", lambda: screen)
    assert fit_screen(size) == window


@pytest.mark.needs_screen
def test_a_frame_larger_than_the_screen_is_shown_whole() -> None:
    window = WindowSink()
    window.write(dataclasses.replace(frame_at(0), pixels=make_image(3840, 1080)))
    left, top, width, height = cv2.getWindowImageRect("deblur (q quits)")
    screen_width, screen_height = _read_screen_size() or SMALL_SCREEN
    assert left + width <= screen_width
    assert top + height <= screen_height
    assert width / height == pytest.approx(3840 / 1080, rel=0.02)
    window.close(complete=True)


def test_frames_of_matroska_have_a_millisecond_each(tmp_path: Path) -> None:
    """Frames of a camera may arrive within a millisecond; Matroska stores no finer times."""
    source = source_info(time_base=Fraction(1, 90_000))
    sink = VideoSink(tmp_path / "a.mkv", source)
    for pts in (0, 30, 60, 9000, 9001, 9090, 18_000, 27_045, 27_090):  # 27_045 is half a millisecond
        sink.write(Frame(pixels=make_image(64, 48, seed=pts), pts=pts, time_base=source.time_base, captured_at=0))
    assert sink.close(complete=True)
    times_ms = [round(1000 * frame.pts_seconds) for frame in open_source(str(tmp_path / "a.mkv"))]
    assert times_ms == [0, 1, 2, 100, 101, 102, 200, 301, 302]
    assert sink.warnings == ["5 frames were moved to a later millisecond"]


def test_an_unfinished_file_is_reported_if_finishing_it_fails(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], invert: Path
) -> None:
    def fail(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".mkv":
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    out = tmp_path / "a.mkv"
    assert main(["--engine", str(invert), "--source", str(clip), "--out", str(out)]) == 6
    shown = capsys.readouterr().err
    assert f"output  {tmp_path / 'a.partial.mkv'}" in shown
    assert sum(1 for _ in open_source(str(tmp_path / "a.partial.mkv"))) == 10
