"""The job queue of the upload page: refused uploads, results, limits, lost workers; no file is left behind."""

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
from dataclasses import replace
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
from runtime.web.job_queue import JobQueue
from runtime.web.messages import JobProgress, JobResult, RefusedError
from runtime.web.settings import Limits
from runtime.web.uploads import check_video, detect_suffix
from runtime.web.worker import hide_folder
from tests.conftest import DEMO_CLIP, ROOT, make_image
from tests.rig import wait_until
from tests.rig.media import ffmpeg

LIMITS = Limits(image_px=4_000_000, video_px=700 * 400, video_s=6.0, video_frames=120, job_s=60.0, queue_length=2)
ENGINE = str(BUNDLED)


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder of the uploads while a job runs."""
    folder, before = tmp_path_factory.mktemp("uploads"), tempfile.tempdir
    tempfile.tempdir = str(folder)
    yield folder
    tempfile.tempdir = before


@pytest.fixture(scope="module")
def queue(temporary: Path) -> Iterator[JobQueue]:
    with closing(JobQueue([BUNDLED], provider="cpu", limits=LIMITS)) as job_queue:
        yield job_queue


@pytest.fixture(autouse=True)
def nothing_left(temporary: Path) -> Iterator[None]:
    yield
    assert not list(temporary.iterdir())


def restore(queue: JobQueue, content: bytes, reference: bytes | None = None) -> JobResult:
    return queue.restore(content, engine=ENGINE, reference=reference, on_progress=lambda _: None)


def encode(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return bytes(cv2.imencode(suffix, pixels)[1])


def write_clip(
    path: Path, *, size: tuple[int, int] = (64, 48), frames: int = 5, fps: int = 25, codec: str = "libx264"
) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "ultrafast"} if codec == "libx264" else {}
        images = [make_image(*size, seed=seed) for seed in range(3)]
        for index in range(frames):
            pixels = images[index % 3]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        container.mux(stream.encode())
    return path.read_bytes()


def png_bomb(width: int, height: int) -> bytes:
    """Return a small PNG whose header states this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_images_are_detected_by_their_content(suffix: str) -> None:
    assert detect_suffix(encode(make_image(40, 30), suffix), LIMITS) == suffix


@pytest.mark.parametrize(
    ("name", "codec", "suffix"),
    [("a.mp4", "libx264", ".mp4"), ("a.mov", "libx264", ".mp4"), ("a.webm", "libvpx", ".mkv")],
)
def test_videos_are_detected_by_their_content(name: str, codec: str, suffix: str, tmp_path: Path) -> None:
    assert detect_suffix(write_clip(tmp_path / name, codec=codec), LIMITS) == suffix


def test_the_size_of_a_video_is_not_that_of_its_cover(tmp_path: Path) -> None:
    """The cover is the first stream of a file whose tags come before its tracks."""
    cv2.imwrite(str(tmp_path / "cover.jpg"), make_image(32, 32))
    write_clip(tmp_path / "large.mp4", size=(720, 480))
    inputs = ("-i", tmp_path / "large.mp4", "-i", tmp_path / "cover.jpg", "-map", 0, "-map", 1, "-c", "copy")
    ffmpeg(*inputs, "-disposition:v:1", "attached_pic", tmp_path / "cover.mp4")
    content = (tmp_path / "cover.mp4").read_bytes()
    start, tags = content.index(b"moov") + 4, content.rindex(b"udta") - 4
    (tmp_path / "cover.mp4").write_bytes(content[:start] + content[tags:] + content[start:tags])
    with av.open(str(tmp_path / "cover.mp4")) as container:
        assert container.streams.video[0].width == 32
    with pytest.raises(InputError, match=r"at most 0\.3 million pixels"):
        check_video(tmp_path / "cover.mp4", LIMITS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png_bomb(20_000, 20_000), "million pixels"),
        (png_bomb(60_000, 60_000), "million pixels"),  # above the limit of Pillow itself
        (b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n", "neither an image nor a video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "neither an image nor a video"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "neither an image nor a video"),
        (b"GIF89a" + bytes(100), "neither an image nor a video"),
        (b"", "neither an image nor a video"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither an image nor a video"),
        (bytes(4) + b"ftypheic" + bytes(100), "HEIF"),
        (bytes(50_000_001), "larger than 50 MB"),
    ],
)
def test_uploads_that_are_refused_before_decoding(content: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        detect_suffix(content, LIMITS)


def test_a_jpeg_gives_a_jpeg(queue: JobQueue) -> None:
    result = restore(queue, encode(make_image(120, 90), ".jpg"))
    assert set(result.files) == {"restored.jpg", "before.jpg", "after.jpg", "side_by_side.jpg"}
    assert cv2.imdecode(np.frombuffer(result.files["restored.jpg"], np.uint8), cv2.IMREAD_COLOR).shape == (90, 120, 3)


def test_restored_image_equals_that_of_the_command_line(queue: JobQueue, tmp_path: Path) -> None:
    blurred = tmp_path / "blurred.png"
    blurred.write_bytes(encode(make_image(120, 90)))
    result = restore(queue, blurred.read_bytes())
    run_video(["--source", str(blurred), "--out", str(tmp_path / "sharp.png"), "--provider", "cpu"])
    restored, expected = (
        cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_COLOR)
        for each in (result.files["restored.png"], (tmp_path / "sharp.png").read_bytes())
    )
    assert np.array_equal(restored, expected)
    assert set(result.files) == {"restored.png", "before.jpg", "after.jpg", "side_by_side.jpg"}
    assert result.frames == 1
    assert result.engine_ms > 0
    assert not result.scores


def test_reference_gives_psnr_and_ssim(queue: JobQueue) -> None:
    sharp = make_image(120, 90)
    blurred = cv2.blur(sharp, (5, 5))
    scores = restore(queue, encode(blurred), encode(sharp)).scores
    assert scores["blurred_psnr_db"] == pytest.approx(cv2.PSNR(blurred, sharp), abs=1e-3)
    assert scores["psnr_db"] != scores["blurred_psnr_db"]
    assert 0 < scores["blurred_ssim"] < 1
    assert 0 < scores["ssim"] < 1


def test_clip_is_returned_restored_and_side_by_side(queue: JobQueue, tmp_path: Path) -> None:
    content = write_clip(tmp_path / "clip.mp4", size=(64, 46), frames=30)
    seen: list[JobProgress] = []
    result = queue.restore(content, engine=ENGINE, reference=content, on_progress=seen.append)
    assert result.frames == 30
    assert result.scores["blurred_psnr_db"] == 99.0
    for name, size in (("restored.mp4", (64, 46)), ("side_by_side.mp4", (128, 46))):
        (tmp_path / name).write_bytes(result.files[name])
        frames = list(VideoSource(tmp_path / name))
        assert len(frames) == 30
        assert frames[0].size == size


def test_side_by_side_of_an_odd_size_plays_in_browsers(queue: JobQueue, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "odd.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 65, 47, "bgr0"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(make_image(65, 47), format="bgr24")))
        container.mux(stream.encode())
    result = restore(queue, (tmp_path / "odd.mkv").read_bytes())
    (tmp_path / "beside.mp4").write_bytes(result.files["side_by_side.mp4"])
    with av.open(str(tmp_path / "beside.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert (container.streams.video[0].width, container.streams.video[0].height) == (130, 46)


def test_uploads_that_are_refused_when_opened(queue: JobQueue, tmp_path: Path) -> None:
    video = write_clip(tmp_path / "a.mp4")
    for content, reference, words in [
        (encode(make_image(64, 48), ".jpg")[:-100], None, "cut off"),
        (bytes(4) + b"ftypisom" + bytes(2000), None, "not a video that can be decoded"),
        (video[: len(video) // 2], None, "not a video that can be decoded"),
        (write_clip(tmp_path / "long.mp4", frames=25 * 7), None, "longer than 6 seconds"),
        (write_clip(tmp_path / "fast.mp4", frames=200, fps=100), None, "or 120 frames"),
        (write_clip(tmp_path / "large.mp4", size=(720, 480)), None, "videos may have at most 0.3 million pixels"),
        (encode(make_image(64, 48)), video, "not both images or both videos"),
        (encode(make_image(64, 48)), encode(make_image(64, 46)), "another size"),
        (write_clip(tmp_path / "more.mp4", frames=6), video, "another size or length"),
    ]:
        with pytest.raises(RefusedError, match=words) as refused:
            restore(queue, content, reference)
        assert str(tmp_path) not in str(refused.value)
        assert tempfile.gettempdir() not in str(refused.value)
    assert restore(queue, encode(make_image(64, 48))).frames == 1


def test_a_video_that_is_cut_off_gives_the_frames_before(queue: JobQueue, tmp_path: Path) -> None:
    write_clip(tmp_path / "whole.mkv", frames=60)
    result = restore(queue, (tmp_path / "whole.mkv").read_bytes()[: (tmp_path / "whole.mkv").stat().st_size * 2 // 3])
    assert "cut off" in result.warnings[0]
    for name in ("restored.mp4", "side_by_side.mp4"):
        (tmp_path / name).write_bytes(result.files[name])
        assert len(list(VideoSource(tmp_path / name))) == result.frames
    assert 10 < result.frames < 60


@pytest.mark.parametrize("size", [(32_752, 16), (65_536, 16), (16, 66_000)])
def test_images_that_are_too_large_for_a_jpeg_are_shown_smaller(queue: JobQueue, size: tuple[int, int]) -> None:
    result = restore(queue, encode(make_image(*size)))
    for name in ("before.jpg", "after.jpg", "side_by_side.jpg", "restored.png"):
        shape = cv2.imdecode(np.frombuffer(result.files[name], np.uint8), cv2.IMREAD_COLOR).shape
        assert (shape[1], shape[0]) == size if name == "restored.png" else max(shape) <= 65_500
    assert "the side-by-side image is scaled from" in result.warnings[-1]


def test_messages_hold_no_folder_of_the_server(tmp_path: Path) -> None:
    folder = str(tmp_path / 'a"b')
    message = {"refused": f"Invalid data: '{folder}/source.mp4'", "hint": f"free {folder}", "out_of_memory": True}
    assert hide_folder(message, folder) == {
        "refused": "Invalid data: 'source.mp4'",
        "hint": "free the upload",
        "out_of_memory": True,
    }


def test_frames_are_counted_when_the_header_states_no_length(temporary: Path, tmp_path: Path) -> None:
    """The Matroska file has neither a duration nor a frame count, so the limit applies while frames are restored."""
    pipe = av.open(str(tmp_path / "live.mkv"), "w", options={"live": "1"})
    with pipe as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(130):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(make_image(64, 48, seed=index % 3), format="bgr24")))
        container.mux(stream.encode())
    content = (tmp_path / "live.mkv").read_bytes()
    with (
        closing(JobQueue([BUNDLED], provider="cpu", limits=LIMITS)) as queue,
        pytest.raises(RefusedError, match="longer"),
    ):
        restore(queue, content)


def test_slow_job_is_stopped_and_the_next_one_runs(temporary: Path) -> None:
    with closing(JobQueue([BUNDLED], provider="cpu", limits=Limits(job_s=0.01))) as queue:
        with pytest.raises(RefusedError, match=r"not finished after 0\.01 seconds"):
            restore(queue, DEMO_CLIP.read_bytes())
        queue.limits = Limits()
        assert restore(queue, encode(make_image(64, 48))).frames == 1


def test_upload_that_needs_too_much_memory_is_refused(temporary: Path) -> None:
    with closing(JobQueue([BUNDLED], provider="cpu", limits=Limits(memory_gib=0.4))) as queue:
        worker = find_worker()
        with pytest.raises(RefusedError, match=r"memory|too much"):
            restore(queue, encode(np.zeros((5000, 7000, 3), np.uint8)))
        assert restore(queue, encode(make_image(64, 48))).frames == 1
        assert find_worker() != worker


def test_worker_that_keeps_much_memory_is_replaced(temporary: Path) -> None:
    limits = Limits(idle_memory_gib=1.0)
    with closing(JobQueue([BUNDLED], provider="cpu", limits=limits)) as queue:
        first = find_worker()
        restore(queue, encode(make_image(64, 48)))
        assert find_worker() == first
        queue.limits = replace(limits, idle_memory_gib=0.01)
        restore(queue, encode(make_image(64, 48)))
        assert find_worker() != first
        assert restore(queue, encode(make_image(64, 48))).frames == 1


def find_worker() -> int:
    """Return the process id of the newest worker of this process."""
    workers = (child for child in psutil.Process().children() if "runtime.web.worker" in child.cmdline())
    return max(workers, key=psutil.Process.create_time).pid


class LeftError(Exception):
    """Stands for the exception that Streamlit raises when a visitor closes the page."""


def test_job_ends_when_its_visitor_leaves(queue: JobQueue) -> None:
    def leave(progress: JobProgress) -> None:
        if progress.frames:
            raise LeftError

    with pytest.raises(LeftError):
        queue.restore(DEMO_CLIP.read_bytes(), engine=ENGINE, on_progress=leave)
    assert restore(queue, encode(make_image(64, 48))).frames == 1


def test_dead_worker_is_replaced(queue: JobQueue) -> None:
    def kill(progress: JobProgress) -> None:
        if progress.frames:
            for child in psutil.Process().children():
                if "runtime.web.worker" in child.cmdline():
                    child.kill()

    with pytest.raises(RefusedError, match="too much"):
        queue.restore(DEMO_CLIP.read_bytes(), engine=ENGINE, on_progress=kill)
    assert restore(queue, encode(make_image(64, 48))).frames == 1


def _run_in_threads(count: int, job: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=job, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_ten_uploads_at_once_are_restored_or_refused(queue: JobQueue) -> None:
    content = encode(make_image(640, 360))
    restored, refused = [], []

    def upload(_: int) -> None:
        try:
            restored.append(restore(queue, content).files["restored.png"])
        except RefusedError as error:
            refused.append(error.what)

    _run_in_threads(10, upload)
    assert len(restored) >= 1 + LIMITS.queue_length
    assert len(set(restored)) == 1
    assert len(restored) + len(refused) == 10
    assert set(refused) <= {"2 uploads are already waiting"}


def test_progress_states_the_number_of_jobs_ahead(queue: JobQueue) -> None:
    reported: list[int] = []
    is_started, is_waiting = threading.Event(), threading.Event()

    def upload(index: int) -> None:
        def on_progress(progress: JobProgress) -> None:
            is_started.set()
            reported.append(progress.jobs_ahead)
            if index:
                is_waiting.set()
            else:
                is_waiting.wait(30)  # keeps the worker busy until the second upload waits

        if index:
            is_started.wait(30)
        queue.restore(DEMO_CLIP.read_bytes(), engine=ENGINE, on_progress=on_progress)

    _run_in_threads(2, upload)
    assert 1 in reported


def test_killed_server_leaves_neither_process_nor_file(temporary: Path) -> None:
    script = f"""
import sys, tempfile, time
tempfile.tempdir = {str(temporary)!r}
from pathlib import Path
from runtime.web.job_queue import JobQueue
from runtime.web.settings import Limits
queue = JobQueue([Path({ENGINE!r})], provider="cpu", limits=Limits())
content = Path({str(DEMO_CLIP)!r}).read_bytes()
def on_progress(progress):
    print(progress.frames, flush=True)
    time.sleep(60 if progress.frames else 0)
queue.restore(content, engine={ENGINE!r}, on_progress=on_progress)
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


def test_engine_that_cannot_be_opened_is_an_error(temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not an engine")
    with pytest.raises(EngineError, match=r"damaged|not an"):
        JobQueue([tmp_path / "broken.onnx"], provider="cpu", limits=LIMITS)
