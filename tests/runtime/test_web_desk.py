"""Uploads: what is refused and with which sentence, what comes back, and that nothing is left behind."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import psutil
import pytest

pytest.importorskip("streamlit")
from runtime.engines import BUNDLED
from runtime.errors import EngineError, InputError
from runtime.sources.video import VideoSource
from runtime.video import main as run_video
from runtime.web.desk import Answer, Desk, RefusedError, Standing
from runtime.web.settings import Limits
from runtime.web.uploads import suffix_of
from tests.conftest import DEMO_CLIP, ROOT, picture
from tests.rig import wait_until

LIMITS = Limits(picture_px=4_000_000, video_px=700 * 400, video_s=6.0, video_frames=120, job_s=60.0, waiting=2)
ENGINE = str(BUNDLED)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where uploads lie while they are worked on."""
    folder, before = tmp_path_factory.mktemp("uploads"), tempfile.tempdir
    tempfile.tempdir = str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def desk(temporary: Path) -> Iterator[Desk]:
    with closing(Desk([BUNDLED], provider="cpu", limits=LIMITS)) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_left(temporary: Path) -> Iterator[None]:
    yield
    assert not list(temporary.iterdir())


def sharpened(desk: Desk, content: bytes, reference: bytes | None = None) -> Answer:
    return desk.sharpen(content, engine=ENGINE, reference=reference, on_standing=lambda _: None)


def packed(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1])


def clip(
    path: Path, *, size: tuple[int, int] = (64, 48), frames: int = 5, fps: int = 25, codec: str = "libx264"
) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "ultrafast"} if codec == "libx264" else {}
        pictures = [picture(*size, seed=seed) for seed in range(3)]
        for index in range(frames):
            pixels = pictures[index % 3]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        container.mux(stream.encode())
    return path.read_bytes()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises so many pixels; a few hundred kilobytes of zeros would fill them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_pictures_are_known_by_their_bytes(suffix: str) -> None:
    assert suffix_of(packed(picture(40, 30), suffix), LIMITS) == suffix


@pytest.mark.parametrize(
    ("name", "codec", "suffix"),
    [("a.mp4", "libx264", ".mp4"), ("a.mov", "libx264", ".mp4"), ("a.webm", "libvpx", ".mkv")],
)
def test_videos_are_known_by_their_bytes(name: str, codec: str, suffix: str, tmp_path: Path) -> None:
    assert suffix_of(clip(tmp_path / name, codec=codec), LIMITS) == suffix


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bomb(20_000, 20_000), "million pixels"),
        (bomb(60_000, 60_000), "million pixels"),  # which Pillow itself calls a bomb
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "neither a picture nor a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "neither a picture nor a video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither a picture nor a video"),
        (b"GIF89a" + bytes(100), "neither a picture nor a video"),
        (b"", "neither a picture nor a video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither a picture nor a video"),
        (bytes(4) + b"ftypheic" + bytes(100), "HEIF"),
        (bytes(50_000_001), "larger than 50 MB"),
    ],
)
def test_what_is_refused_before_anything_is_decoded(content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        suffix_of(content, LIMITS)


def test_a_picture_comes_back_as_the_command_line_makes_it(desk: Desk, tmp_path: Path) -> None:
    blurred = tmp_path / "blurred.png"
    blurred.write_bytes(packed(picture(120, 90)))
    answer = sharpened(desk, blurred.read_bytes())
    run_video(["--source", str(blurred), "--out", str(tmp_path / "sharp.png"), "--provider", "cpu"])
    restored, expected = (
        cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR)
        for each in (answer.files["restored.png"], (tmp_path / "sharp.png").read_bytes())
    )
    assert np.array_equal(restored, expected)
    assert set(answer.files) == {"restored.png", "before.jpg", "after.jpg", "side_by_side.jpg"}
    assert answer.frames == 1
    assert answer.engine_ms > 0
    assert not answer.scores


def test_a_reference_gives_scores(desk: Desk) -> None:
    sharp = picture(120, 90)
    blurred = cv2.blur(sharp, (5, 5))
    scores = sharpened(desk, packed(blurred), packed(sharp)).scores
    assert scores["blurred_psnr_db"] == pytest.approx(cv2.PSNR(blurred, sharp), abs=1e-3)
    assert scores["psnr_db"] != scores["blurred_psnr_db"]
    assert 0 < scores["blurred_ssim"] < 1
    assert 0 < scores["ssim"] < 1


def test_a_clip_comes_back_whole_and_side_by_side(desk: Desk, tmp_path: Path) -> None:
    content = clip(tmp_path / "clip.mp4", size=(64, 46), frames=30)
    seen: list[Standing] = []
    answer = desk.sharpen(content, engine=ENGINE, reference=content, on_standing=seen.append)
    assert answer.frames == 30
    assert answer.scores["blurred_psnr_db"] == 99.0
    for name, size in (("restored.mp4", (64, 46)), ("side_by_side.mp4", (128, 46))):
        (tmp_path / name).write_bytes(answer.files[name])
        frames = list(VideoSource(tmp_path / name))
        assert len(frames) == 30
        assert frames[0].size == size


def test_a_clip_of_odd_size_is_shown_as_browsers_can(desk: Desk, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 65, 47, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(65, 47), format="bgr24")))
        container.mux(stream.encode())
    answer = sharpened(desk, (tmp_path / "odd.mkv").read_bytes())
    (tmp_path / "beside.mp4").write_bytes(answer.files["side_by_side.mp4"])
    with av.open(str(tmp_path / "beside.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert (container.streams.video[0].width, container.streams.video[0].height) == (130, 46)


def test_what_is_refused_once_it_is_opened(desk: Desk, tmp_path: Path) -> None:
    video = clip(tmp_path / "a.mp4")
    for content, reference, words in [
        (packed(picture(64, 48), ".jpg")[:-100], None, "cut off"),
        (bytes(4) + b"ftypisom" + bytes(2000), None, "not a video that can be decoded"),
        (video[: len(video) // 2], None, "not a video that can be decoded"),
        (clip(tmp_path / "long.mp4", frames=25 * 7), None, "longer than 6 seconds"),
        (clip(tmp_path / "fast.mp4", frames=200, fps=100), None, "or 120 frames"),
        (clip(tmp_path / "large.mp4", size=(720, 480)), None, "videos may have 0.3 million pixels"),
        (packed(picture(64, 48)), video, "compared with a picture"),
        (packed(picture(64, 48)), packed(picture(64, 46)), "another size"),
        (clip(tmp_path / "more.mp4", frames=6), video, "another size or length"),
    ]:
        with pytest.raises(RefusedError, match=words) as refused:
            sharpened(desk, content, reference)
        assert str(tmp_path) not in str(refused.value)
        assert tempfile.gettempdir() not in str(refused.value)
    assert sharpened(desk, packed(picture(64, 48))).frames == 1


def test_a_header_that_lies_about_its_length_helps_nobody(temporary: Path, tmp_path: Path) -> None:
    """Matroska without a duration and a count of frames: the frames are counted as they come."""
    pipe = av.open(str(tmp_path / "live.mkv"), "w", options={"live": "1"})
    with pipe as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(130):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(64, 48, seed=index % 3), format="bgr24")))
        container.mux(stream.encode())
    with closing(Desk([BUNDLED], provider="cpu", limits=LIMITS)) as desk, pytest.raises(RefusedError, match="longer"):
        sharpened(desk, (tmp_path / "live.mkv").read_bytes())


def test_a_job_that_takes_too_long_is_stopped_and_the_next_is_served(temporary: Path) -> None:
    with closing(Desk([BUNDLED], provider="cpu", limits=Limits(job_s=0.01))) as desk:
        with pytest.raises(RefusedError, match=r"not done after 0\.01 seconds"):
            sharpened(desk, DEMO_CLIP.read_bytes())
        desk.limits = Limits()
        assert sharpened(desk, packed(picture(64, 48))).frames == 1


def test_more_memory_than_there_is_for_it_is_refused(temporary: Path) -> None:
    with closing(Desk([BUNDLED], provider="cpu", limits=Limits(memory_gib=0.4))) as desk:
        with pytest.raises(RefusedError, match=r"memory|too much"):
            sharpened(desk, packed(np.zeros((5000, 7000, 3), np.uint8)))
        assert sharpened(desk, packed(picture(64, 48))).frames == 1


class LeftError(Exception):
    """As Streamlit's, when a tab is closed."""


def test_a_visitor_who_leaves_takes_the_job_along(desk: Desk) -> None:
    def leave(standing: Standing) -> None:
        if standing.frames:
            raise LeftError

    with pytest.raises(LeftError):
        desk.sharpen(DEMO_CLIP.read_bytes(), engine=ENGINE, on_standing=leave)
    assert sharpened(desk, packed(picture(64, 48))).frames == 1


def test_a_worker_that_dies_is_replaced(desk: Desk) -> None:
    def kill(standing: Standing) -> None:
        if standing.frames:
            for child in psutil.Process().children():
                if "runtime.web.worker" in child.cmdline():
                    child.kill()

    with pytest.raises(RefusedError, match="too much"):
        desk.sharpen(DEMO_CLIP.read_bytes(), engine=ENGINE, on_standing=kill)
    assert sharpened(desk, packed(picture(64, 48))).frames == 1


def _together(count: int, job: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=job, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_ten_at_once_are_served_in_turn_or_told_to_come_again(desk: Desk) -> None:
    content = packed(picture(640, 360))
    served, refused = [], []

    def ask(_: int) -> None:
        try:
            served.append(sharpened(desk, content).files["restored.png"])
        except RefusedError as error:
            refused.append(error.what)

    _together(10, ask)
    assert len(served) >= 1 + LIMITS.waiting
    assert len(set(served)) == 1
    assert len(served) + len(refused) == 10
    assert set(refused) <= {"2 uploads wait already"}


def test_those_who_wait_hear_how_many_are_before_them(desk: Desk) -> None:
    heard: list[int] = []
    started, waits = threading.Event(), threading.Event()

    def ask(index: int) -> None:
        def on_standing(standing: Standing) -> None:
            started.set()
            heard.append(standing.ahead)
            if index:
                waits.set()
            else:
                waits.wait(30)  # and keeps its turn meanwhile

        if index:
            started.wait(30)
        desk.sharpen(DEMO_CLIP.read_bytes(), engine=ENGINE, on_standing=on_standing)

    _together(2, ask)
    assert 1 in heard


def test_a_server_that_is_killed_leaves_neither_process_nor_file(temporary: Path) -> None:
    script = f"""
import sys, tempfile, time
tempfile.tempdir = {str(temporary)!r}
from pathlib import Path
from runtime.web.desk import Desk
from runtime.web.settings import Limits
desk = Desk([Path({ENGINE!r})], provider="cpu", limits=Limits())
content = Path({str(DEMO_CLIP)!r}).read_bytes()
def on_standing(standing):
    print(standing.frames, flush=True)
    time.sleep(60 if standing.frames else 0)
desk.sharpen(content, engine={ENGINE!r}, on_standing=on_standing)
"""
    server = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    while int(server.stdout.readline()) < 1:
        pass
    workers = psutil.Process(server.pid).children()
    assert list(temporary.iterdir())
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    server.stdout.close()
    wait_until(lambda: not list(temporary.iterdir()))
    wait_until(lambda: not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers))


def test_an_engine_that_cannot_be_opened_is_told_at_once(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not an engine")
    with pytest.raises(EngineError, match=r"damaged|not an"):
        Desk([tmp_path / "broken.onnx"], provider="cpu", limits=LIMITS)
