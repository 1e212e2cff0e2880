"""File sources with real files: time stamps, colours, rotation, damage, order and names."""

from __future__ import annotations

import errno
import shlex
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from runtime import sources
from runtime.errors import DeblurError, InputError
from runtime.frame import as_bgr
from runtime.image_files import natural_order
from runtime.sources import open_source
from runtime.sources.packets import read_packets
from runtime.sources.video import VideoSource
from runtime.video import main
from tests.conftest import SHARED, Survived, make_image, write_clip


def seconds_of(source: VideoSource) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in source]


@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 12_800), [512 * index for index in range(12)]),
        (Fraction(1, 90_000), [0, 3003, 7000, 7001, 20_000]),
        (Fraction(1, 30_000), [90_000, 91_001, 92_002]),
    ],
    ids=["constant", "variable", "late start"],
)
def test_time_stamps_are_exact(tmp_path: Path, time_base: Fraction, pts: list[int]) -> None:
    expected = write_clip(tmp_path / "a.mp4", time_base=time_base, pts=pts)
    source = VideoSource(tmp_path / "a.mp4")
    assert source.info.frame_count == len(pts)
    assert seconds_of(source) == expected
    source.close()


def test_raw_streams_without_time_stamps_use_the_nominal_rate(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.h264", pts=list(range(6)), time_base=Fraction(1, 25))
    seconds = seconds_of(VideoSource(tmp_path / "a.h264"))
    assert np.allclose(np.diff([float(second) for second in seconds]), 0.04, atol=1e-4)


def test_a_title_that_is_not_utf8_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "XXXX"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        for index in range(3):
            frame = av.VideoFrame.from_ndarray(make_image(64, 48), format="bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"XXXX", b"\xe9\xff\xe9\xff"))
    assert len(list(VideoSource(path))) == 3


def test_frames_are_read_in_order(clip: Path) -> None:
    for index, frame in enumerate(VideoSource(clip)):
        assert np.abs(frame.pixels.astype(int) - make_image(64, 48, seed=index)).mean() < 6


def write_with_matrix(path: Path, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Write a clip whose header moves a stored point (x, y) to (a x + c y, b x + d y), and return its stored frame."""
    write_clip(path)
    content = path.read_bytes()
    unity, matrix = (
        b"".join((n % 2**32).to_bytes(4, "big") for n in (w << 16, x << 16, 0, y << 16, z << 16, 0, 0, 0, 1 << 30))
        for w, x, y, z in ((1, 0, 0, 1), (a, b, c, d))
    )
    straight = next(iter(VideoSource(path))).pixels
    place = content.index(unity, content.index(b"tkhd"))
    path.write_bytes(content[:place] + matrix + content[place + 36 :])
    return straight


@pytest.mark.fault("Files", "rotation in the metadata", done="90 degrees")
def test_rotation_is_applied(tmp_path: Path, survived: Survived) -> None:
    """Only the metadata rotates the frames: the decoder returns 64x48, players show 48x64."""
    straight = write_with_matrix(tmp_path / "rotated.mp4", 0, 1, -1, 0)
    pixels = next(iter(VideoSource(tmp_path / "rotated.mp4"))).pixels
    assert np.array_equal(pixels, cv2.rotate(straight, cv2.ROTATE_90_CLOCKWISE))
    survived("applied", lost=0)


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
    ],
    ids=["left to right", "upside down", "transposed", "transposed about the other diagonal"],
)
@pytest.mark.parametrize("has_planes", [False, True])
def test_a_mirrored_clip_is_mirrored(
    matrix: tuple[int, int, int, int], turn: Callable[[np.ndarray], np.ndarray], has_planes: bool, tmp_path: Path
) -> None:
    straight = write_with_matrix(tmp_path / "a.mp4", *matrix)
    source = VideoSource(tmp_path / "a.mp4")
    assert source.info.size == turn(straight).shape[1::-1]
    if has_planes:
        source.deliver_planes()
    pixels = as_bgr(next(iter(source)).pixels)
    assert np.abs(pixels.astype(int) - turn(straight)).mean() < (2 if has_planes else 1e-9)


def test_a_closed_video_gives_no_more_frames(tmp_path: Path) -> None:
    """FFmpeg would read memory that it has given back."""
    write_clip(tmp_path / "a.mp4", pts=[512 * index for index in range(30)])
    source = VideoSource(tmp_path / "a.mp4")
    frames = iter(source)
    assert next(frames).pts == 0
    source.close()
    assert (next(frames, None), list(source)) == (None, [])
    source = VideoSource(tmp_path / "a.mp4")
    closer = Timer(0.02, source.close)
    closer.start()
    assert len(list(source)) < 30 or not closer.is_alive()
    closer.join()
    assert list(source) == []


def test_odd_size_is_kept(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", size=(33, 21), pix_fmt="yuv444p")
    assert next(iter(VideoSource(tmp_path / "a.mp4"))).size == (33, 21)


def test_a_damaged_packet_is_skipped_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    write_clip(path, codec="mpeg4", size=(320, 240), pts=list(range(40)), time_base=Fraction(1, 25))
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    target = packets[20]
    content[target.pos : target.pos + target.size] = bytes(target.size)
    path.write_bytes(content)
    source = VideoSource(path)
    assert len(list(source)) >= 35
    assert "damaged" in source.warnings[0]


def eagain() -> av.FFmpegError:
    return av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_a_demuxer_that_asks_to_be_called_again_is_called_again() -> None:
    """FFmpeg does so where a file is damaged."""
    parts = [[1, 2], [], [3]]

    def demux() -> Iterator[int]:
        yield from parts.pop(0)
        if parts:
            raise eagain()

    assert list(read_packets(SimpleNamespace(demux=demux))) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_packet_whose_size_does_not_fit_into_memory_is_damage(
    kind: str, invert: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(clip.read_bytes())
    first = content.index(b"stsz") + 16
    sizes = first if kind == "video" else content.index(b"stsz", first) + 16
    content[sizes + 16 : sizes + 20] = (1 << 29).to_bytes(4, "big")  # FFmpeg fails with ENOMEM, at each attempt
    clip.write_bytes(content)
    out = tmp_path / "out.mp4"
    assert main(["--engine", str(invert), f"--source={clip}", f"--out={out}", "--provider", "cpu"]) == 3
    assert "error: file is cut off after 0." in capsys.readouterr().err
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) >= 4


def test_a_table_whose_size_does_not_fit_into_memory_is_damage(
    invert: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(clip.read_bytes())
    count = content.index(b"stts") + 8
    content[count : count + 4] = b"\x7f\xff\xff\xff"
    clip.write_bytes(content)
    assert main(["--engine", str(invert), f"--source={clip}", "--out=null", "--provider", "cpu"]) == 3
    assert "error: not a video that can be decoded (a table in its header" in capsys.readouterr().err


def test_a_stream_that_appears_late_ends_nothing() -> None:
    """PyAV fails at the end, when it empties the buffer of a stream that it does not know."""

    def demux() -> Iterator[int]:
        yield 1
        raise IndexError

    assert list(read_packets(SimpleNamespace(demux=demux))) == [1]


def test_eagain_of_a_damaged_file_is_no_lack_of_memory(
    monkeypatch: pytest.MonkeyPatch, invert: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise eagain()

    monkeypatch.setattr(sources.video, "open_decoded", fail)
    assert main(["--engine", str(invert), f"--source={clip}", "--out=null", "--provider", "cpu"]) == 3
    assert "error: not a video that can be decoded (Resource temporarily" in capsys.readouterr().err


def bad_files(folder: Path) -> dict[str, Path]:
    """Write files that are no input and return their paths by name."""
    write_clip(folder / "good.mp4")
    whole = (folder / "good.mp4").read_bytes()
    (folder / "zero.mp4").touch()
    (folder / "junk.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "no_moov.mp4").write_bytes(whole[: whole.index(b"moov")])
    (folder / "image.mp4").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (folder / "junk.png").write_bytes(b"not an image")
    (folder / "empty folder").mkdir()
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    names = (
        "missing.mp4",
        "zero.mp4",
        "junk.mp4",
        "no_moov.mp4",
        "image.mp4",
        "junk.png",
        "sound.mp4",
        "empty folder",
    )
    return {name: folder / name for name in names}


@pytest.mark.parametrize(
    "name",
    ["missing.mp4", "zero.mp4", "junk.mp4", "no_moov.mp4", "image.mp4", "junk.png", "sound.mp4", "empty folder"],
)
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = bad_files(tmp_path)[name]
    with pytest.raises(InputError) as refusal:
        list(open_source(str(path)))
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def write_images(folder: Path) -> None:
    color = make_image(40, 30)
    cv2.imwrite(str(folder / "a2.png"), color)
    cv2.imwrite(str(folder / "a10.png"), cv2.cvtColor(color, cv2.COLOR_BGR2GRAY))
    cv2.imwrite(str(folder / "a1.png"), cv2.cvtColor(color, cv2.COLOR_BGR2BGRA))
    cv2.imwrite(str(folder / "deep.png"), color.astype(np.uint16) * 257)
    (folder / "notes.txt").write_text("not an image")


def test_a_folder_is_read_in_natural_order_as_8_bit_colour(tmp_path: Path) -> None:
    write_images(tmp_path)
    frames = list(open_source(str(tmp_path)))
    assert [frame.file.stem for frame in frames] == ["a1", "a2", "a10", "deep"]
    assert {(frame.pixels.shape, frame.pixels.dtype) for frame in frames} == {((30, 40, 3), np.dtype(np.uint8))}
    assert np.array_equal(frames[0].pixels, frames[1].pixels)
    assert np.abs(frames[3].pixels.astype(int) - frames[1].pixels).max() <= 1


def test_an_existing_name_is_not_a_pattern(tmp_path: Path) -> None:
    write_images(tmp_path)
    cv2.imwrite(str(tmp_path / "a[1].png"), make_image(8, 8))
    assert [frame.file.stem for frame in open_source(str(tmp_path / "a?.png"))] == ["a1", "a2"]
    assert next(iter(open_source(str(tmp_path / "a[1].png")))).size == (8, 8)


def test_a_broken_image_in_a_series_is_skipped_with_a_warning(tmp_path: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "a5.png").write_bytes(b"junk")
    source = open_source(str(tmp_path))
    assert len(list(source)) == 4
    assert "a5.png" in source.warnings[0]


def test_names_with_line_breaks_and_other_scripts(tmp_path: Path) -> None:
    for name in ("тест кадр.png", "a\nb.png", "-x.png"):
        cv2.imwrite(str(tmp_path / "plain.png"), make_image(8, 6))
        (tmp_path / "plain.png").rename(tmp_path / name)
        assert next(iter(open_source(str(tmp_path / name)))).size == (8, 6)


def test_natural_order() -> None:
    names = ["b1", "a10", "a9", "a", "10", "9"]
    assert sorted(map(Path, names), key=natural_order) == [Path(name) for name in ("9", "10", "a", "a9", "a10", "b1")]


@pytest.mark.needs_shared_data
@pytest.mark.parametrize("kind", ["video", "made", "image"])
def test_a_strange_file_is_read_or_refused_in_one_line(kind: str) -> None:
    """Read the whole collection of odd files: no traceback and no hang."""
    files_read = 0
    for path in sorted((SHARED / "odd" / kind).rglob("*")):
        if path.is_dir() or path.stat().st_size > 2_000_000:
            continue
        files_read += 1
        try:
            source = open_source(str(path))
            for frame in islice(source, 12):
                assert frame.pixels.ndim == 3
                assert frame.pixels.shape[2] == 3
            source.close()
        except DeblurError as error:
            assert error.exit_code == 3
            assert "\n" not in str(error)
    assert files_read > 5


@pytest.mark.parametrize(("suffix", "options"), [(".mp4", {"movflags": "faststart"}), (".mkv", {})])
def test_a_file_that_is_cut_off_is_read_up_to_there_and_reports_damage(
    tmp_path: Path, suffix: str, options: dict[str, str]
) -> None:
    path = tmp_path / f"a{suffix}"
    write_clip(path, size=(320, 240), pts=[512 * index for index in range(100)], options=options)
    whole = VideoSource(path)
    assert len(list(whole)) == 100
    assert whole.damage is None
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    source = VideoSource(path)
    assert 20 < len(list(source)) < 80
    assert source.damage
    assert "file is cut off after" in str(source.damage)


@pytest.mark.parametrize("name", ["my clips", "my clips/*.mkv"])
def test_folder_or_pattern_of_videos_names_the_batch(name: str, tmp_path: Path) -> None:
    (tmp_path / "my clips").mkdir()
    for index in range(2):
        (tmp_path / "my clips" / f"{index}.mkv").touch()
    place = tmp_path / name
    with pytest.raises(InputError, match="no images found, but videos") as caught:
        open_source(str(place))
    assert f"python -m runtime.batch --source {shlex.quote(str(place))} --out DIR" in caught.value.hint
