"""Live sources, with real servers where possible: silence, lost connections, other sizes, frozen images."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from runtime.engines.base import SynchronousEngine
from runtime.errors import SourceLostError
from runtime.frame import Pixels
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.sources import LiveOptions, Watch, open_source
from runtime.sources.camera import CameraFeed, PipedFeed
from runtime.sources.live import LiveSource
from runtime.sources.network import NetworkFeed
from runtime.spec import EngineSpec
from runtime.stream_format import PLAIN
from tests.conftest import Survived, write_clip, zero_packet
from tests.rig import Proxy, RtspServer, free_port, require_rtsp_server, wait_until
from tests.runtime.conftest import UNGUARDED
from tests.runtime.test_pipeline import Kept

QUICK = Watch(timeout_s=1, open_s=1, first_wait_s=0.01, longest_wait_s=0.05)


class ScriptedFeed:
    """A feed that plays a list, 20 ms for each item: a number is a gray frame, "stall" blocks, "break" raises.

    With `waits`, each frame waits until the one before was read, so that none is dropped.
    """

    def __init__(self, items: list[int | str], log: list[str], *, fps: float = 1000, waits: bool = False) -> None:
        self.frame_rate, self.format, self.damaged_packets = Fraction(fps), PLAIN, 0
        self._items, self._log, self._waits = items, log, waits
        log.append("open")

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        for item in self._items:
            time.sleep(0.02)
            if item == "stall":
                self._log.append("stall")
                threading.Event().wait(5)
            elif item == "damage":
                self.damaged_packets += 1
            elif item == "break":
                raise OSError("cable\npulled")
            else:
                was_read = threading.Event()
                yield partial(self._pixels, item, was_read)
                if self._waits:
                    was_read.wait(20)

    def close(self) -> None:
        self._log.append("close")

    def _pixels(self, gray: int | str, was_read: threading.Event) -> Pixels:
        was_read.set()
        return np.full((8, 8, 3), gray, np.uint8)


def scripted_source(
    *connections: list[int | str], watch: Watch = QUICK, waits: bool = False
) -> tuple[LiveSource, list[str]]:
    """A source whose connections play these lists one after the other; further connections are refused."""
    log: list[str] = []
    remaining = iter(connections)

    def open_feed() -> ScriptedFeed:
        items = next(remaining, None)
        if items is None:
            raise SourceLostError("refused", "scripted", hint="")
        return ScriptedFeed(items, log, waits=waits)

    return LiveSource("scripted", open_feed, watch), log


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("stall", "no frame for 1 s"), ("break", "cable pulled"), ("end", "end of stream")],
)
def test_a_lost_connection_is_opened_again(fault: str, reason: str) -> None:
    source, log = scripted_source([1, 2, fault] if fault != "end" else [1, 2], [3, 4, 5], waits=True)
    frames = list(islice(source, 5))
    assert [frame.pixels[0, 0, 0] for frame in frames] == [1, 2, 3, 4, 5]
    pts = [frame.pts for frame in frames]
    assert pts[0] == 0
    assert pts == sorted(pts)
    assert source.reconnects == 1
    assert source.warnings == [f"reconnections to the source: 1 ({reason})"]
    source.close()
    assert log.count("open") == 2


def test_damaged_packets_are_counted_over_all_connections() -> None:
    source, _ = scripted_source([1, "damage", 2, "damage", "break"], ["damage", 3, 4], waits=True)
    assert [frame.pixels[0, 0, 0] for frame in islice(source, 4)] == [1, 2, 3, 4]
    assert source.warnings[0] == "3 damaged packets could not be decoded and were skipped"
    source.close()


def test_a_damaged_packet_of_a_stream_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "in.avi"
    write_clip(path, codec="mpeg4", size=(320, 240), pts=list(range(40)), time_base=Fraction(1, 25))
    zero_packet(path, 20)
    feed = NetworkFeed(str(path))
    assert sum(1 for _ in feed) >= 35
    assert feed.damaged_packets == 1
    feed.close()


def test_a_limit_on_failures_in_a_row_ends_the_source() -> None:
    source, _ = scripted_source([1, 2], watch=Watch(timeout_s=0.3, open_s=0.3, first_wait_s=0.01, max_reconnects=3))
    with pytest.raises(SourceLostError, match=r"did not come back in 3 tries \(refused\)") as caught:
        list(source)
    assert caught.value.exit_code == 5
    assert source.reconnects == 3


def test_a_source_that_is_closed_while_it_waits_connects_no_more() -> None:
    source, log = scripted_source([1, 2], [3], watch=Watch(first_wait_s=60))
    closer = threading.Timer(0.3, source.close)
    closer.start()
    assert len(list(source)) <= 2
    closer.join()
    assert (log.count("open"), source.reconnects) == (1, 0)


@pytest.mark.fault("Live sources", "frozen image", done="one frame for longer than --frozen-s")
def test_a_frozen_image(survived: Survived) -> None:
    frozen: list[int | str] = [7] * 100
    source, _ = scripted_source(frozen, [1, 2, 3], watch=Watch(timeout_s=1, frozen_s=0.2, first_wait_s=0.01))
    assert next(frame for frame in source if frame.pixels[0, 0, 0] < 7)
    assert source.warnings == ["reconnections to the source: 1 (identical frames for 0.2 s)"]
    source.close()
    survived("reconnected, counted")


@pytest.mark.fault("Live sources", "impossible frame rate", done="500 fps from a source that states 2")
def test_an_impossible_frame_rate(survived: Survived) -> None:
    class Fast(ScriptedFeed):
        def __init__(self, log: list[str]) -> None:
            super().__init__([], log, fps=2)

        def __iter__(self) -> Iterator[Callable[[], Pixels]]:
            for index in range(10_000):
                time.sleep(0.002)
                yield lambda index=index: np.full((8, 8, 3), index % 256, np.uint8)

    source = LiveSource("fast", lambda: Fast([]), QUICK)
    frames = iter(source)
    end = time.monotonic() + 10
    while not source.reconnects:
        assert time.monotonic() < end
        next(frames)
    assert source.warnings == ["reconnections to the source: 1 (more than 3 times its frame rate)"]
    source.close()
    survived("reconnected, counted")


@pytest.mark.parametrize(("items", "reason"), [(["stall"], "no frame for 1 s"), ([], "end of stream")])
def test_a_first_connection_without_frames_ends_the_source(items: list[int | str], reason: str) -> None:
    start = time.monotonic()
    with pytest.raises(SourceLostError, match=reason):
        scripted_source(items)
    assert time.monotonic() - start < 4


def test_the_newest_frame_is_read_and_the_others_are_counted() -> None:
    source, log = scripted_source([*range(8), "stall"])
    frames = iter(source)
    next(frames)
    wait_until(lambda: "stall" in log)
    assert next(frames).pixels[0, 0, 0] == 7
    assert source.dropped == 6
    source.close()


class Steady:
    """A feed of numbered frames at `fps` for some seconds, then silence."""

    def __init__(self, fps: float, seconds: float) -> None:
        self.frame_rate, self.format, self.damaged_packets = Fraction(fps).limit_denominator(), PLAIN, 0
        self.delivered = 0
        self._fps, self._seconds = fps, seconds

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        start = time.perf_counter()
        while (now := time.perf_counter() - start) < self._seconds:
            time.sleep(max(0.0, self.delivered / self._fps - now))
            self.delivered += 1
            yield partial(np.full, (8, 8, 3), self.delivered % 251, np.uint8)
        threading.Event().wait(60)

    def close(self) -> None: ...


class Busy(SynchronousEngine):
    """An engine that takes `seconds` for each batch."""

    spec, backend, provider = EngineSpec(name="busy"), "test", "cpu"

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def infer(self, batch: Pixels) -> Pixels:
        time.sleep(self.seconds)
        return batch

    def close(self) -> None: ...


@pytest.mark.fault("Live sources", "engine slower than the camera", done="60 fps into an engine that does 10")
@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_latency_is_bounded_with_a_slow_engine(seconds: float, survived: Survived) -> None:
    """60 fps into an engine that does 10: p99 is below two frame intervals plus the time of the engine."""
    feed = Steady(60, seconds)
    source = LiveSource("steady", lambda: feed, Watch(timeout_s=1, open_s=1, max_reconnects=0))
    sink = Kept()
    pipeline = Pipeline(source, Busy(0.1), sink, UNGUARDED)
    with pytest.raises(SourceLostError):
        pipeline.run()
    percent = 99 if seconds > 10 else 90  # a busy machine may delay one of 40 frames
    assert pipeline.latencies["total"].percentile_ms(percent) < 100 + 2 * 1000 / 60 + 15  # 15 ms for the scheduler
    assert pipeline.frames_dropped + pipeline.frames_written == pytest.approx(
        feed.delivered, abs=2
    )  # two may be in progress
    assert pipeline.frames_written == pytest.approx(10 * seconds, rel=0.15)
    p99_ms = pipeline.latencies["total"].percentile_ms(99)
    survived(
        f"p99 {p99_ms:.0f} ms over {seconds} s; {pipeline.frames_dropped} of {feed.delivered} frames dropped, counted"
    )


class SlowToDecode(Steady):
    """A feed whose frames take longer to decode than the next ones need to arrive, so that the source drops some."""

    def __iter__(self) -> Iterator[Callable[[], Pixels]]:
        for pixels in super().__iter__():
            yield partial(self._decode, pixels)

    @staticmethod
    def _decode(pixels: Callable[[], Pixels]) -> Pixels:
        time.sleep(0.02)
        return pixels()


@pytest.mark.parametrize("more", [{}, {"max_latency_ms": 40}, {"skip_blur_score": 1.0}])
def test_every_frame_of_a_live_source_is_counted_once(more: dict[str, float]) -> None:
    """Dropped in the connection, in the queue, as too old, or written: together they are what was read."""
    feed = SlowToDecode(200, 60)
    source = LiveSource("slow", lambda: feed, Watch())
    wait_until(lambda: source.dropped >= 50)  # as while an engine is opened
    pipeline = Pipeline(source, Busy(0.1), Kept(), RunOptions(guard=False, **more))
    assert pipeline.frames_read == pipeline.frames_dropped == 0
    reads = []

    def stop_after_drops(pipe: Pipeline, *_: object) -> None:
        reads.append(pipe.frames_read)
        assert pipe.frames_read >= pipe.frames_written
        if pipe.frames_written >= 5 and pipe.frames_dropped >= 25:
            pipe.stop()

    pipeline.listeners.append(stop_after_drops)
    pipeline.run()
    assert pipeline.frames_read == pipeline.frames_written + pipeline.frames_dropped
    assert reads == sorted(reads)
    assert pipeline.frames_read + 50 <= feed.delivered


def test_frames_older_than_the_limit_are_dropped() -> None:
    feed = Steady(100, 1)
    source = LiveSource("steady", lambda: feed, Watch(timeout_s=0.5, open_s=1, max_reconnects=0))
    sink = Kept()
    pipeline = Pipeline(source, Busy(0.05), sink, RunOptions(guard=False, max_latency_ms=0.001))
    with pytest.raises(SourceLostError):
        pipeline.run()
    assert pipeline.frames_written == 0
    assert pipeline.frames_dropped == pytest.approx(feed.delivered, abs=2)  # two may be in progress
    assert feed.delivered > 2


# Cameras


def test_a_camera_is_read_through_opencv(clip: Path) -> None:
    feed = CameraFeed(0, size=(64, 48), fps=25, open_capture=lambda _: cv2.VideoCapture(str(clip)))
    assert feed.frame_rate == 25
    assert sum(pixels().shape == (48, 64, 3) for pixels in feed) == 10
    feed.close()


@pytest.mark.fault("Live sources", "no such camera", done="index 97, /dev/null")
@pytest.mark.parametrize("text", ["97", "/dev/null"])
def test_a_missing_camera_is_one_line(text: str, survived: Survived) -> None:
    with pytest.raises(SourceLostError, match="camera does not open"):
        open_source(text)
    survived("one line", code=5)


@pytest.mark.parametrize("width", [32, 33, 34, 35])
def test_a_gstreamer_pipeline_in_a_child_process(width: int) -> None:
    try:
        feed = PipedFeed(
            "videotestsrc num-buffers=5 pattern=red ! videoconvert", size=(width, 24), frame_rate=Fraction(30)
        )
    except SourceLostError as error:
        pytest.skip(str(error))
    frames = []
    with pytest.raises(SourceLostError, match=r"gst-launch-1\.0: "):
        frames.extend(pixels() for pixels in feed)
    feed.close()
    assert len(frames) == 5
    for frame in frames:
        assert frame.shape == (24, width, 3)
        assert (frame == [0, 0, 255]).all()


def test_messages_of_a_camera_driver_are_no_pixels_and_never_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nvarguscamerasrc prints 40 lines to standard output, and may print more than a pipe holds to the other."""
    launch = tmp_path / "gst-launch-1.0"
    launch.write_text(
        f"""#!{sys.executable}
import os, re, sys
(sink,) = (int(match[1]) for word in sys.argv if (match := re.fullmatch("fd=([0-9]+)", word)))
for index in range(5):
    print("GST_ARGUS: Creating output stream\\n" * 40, flush=True)
    print("warning\\n" * 20_000, file=sys.stderr, flush=True)
    os.write(sink, bytes([index]) * (3 * 32 * 24))
"""
    )
    launch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    feed = PipedFeed("nvarguscamerasrc", size=(32, 24), frame_rate=Fraction(30))
    frames = []
    with pytest.raises(SourceLostError, match=r"gst-launch-1\.0: warning"):
        frames.extend(pixels() for pixels in feed)
    feed.close()
    assert [int(frame.min()) for frame in frames] == [int(frame.max()) for frame in frames] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("obedient", [True, False])
def test_the_child_process_is_asked_to_close_its_camera_before_it_is_killed(
    obedient: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = tmp_path / "gst-launch-1.0"
    launch.write_text(
        f"""#!{sys.executable}
import os, re, signal, sys, time
(sink,) = (int(match[1]) for word in sys.argv if (match := re.fullmatch("fd=([0-9]+)", word)))
def close(*_):
    open({str(tmp_path / "closed")!r}, "w").close()
    if {obedient}:
        sys.exit(0)
signal.signal(signal.SIGINT, close)
os.write(sink, bytes(3 * 32 * 24))
while True:
    time.sleep(60)
"""
    )
    launch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr("runtime.sources.camera._END_S", 60.0 if obedient else 1.0)
    feed = PipedFeed("nvarguscamerasrc", size=(32, 24), frame_rate=Fraction(30))
    next(iter(feed))
    feed.close()
    assert (tmp_path / "closed").exists()
    assert feed._child.returncode == (0 if obedient else -signal.SIGKILL)


def test_a_csi_camera_without_gstreamer_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(SourceLostError, match=r"neither OpenCV with GStreamer nor gst-launch-1\.0 is installed"):
        open_source("csi://0")


# Addresses


def test_a_password_is_in_no_error_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "hidden")
    with pytest.raises(SourceLostError) as caught:
        open_source(f"rtsp://admin:${{CAMERA_PASSWORD}}@127.0.0.1:{free_port()}/live")
    assert "hidden" not in str(caught.value)
    assert "***@127.0.0.1" in str(caught.value)


# A real server


@pytest.fixture
def server() -> Iterator[RtspServer]:
    require_rtsp_server()
    server = RtspServer()
    yield server
    server.kill()


LIVE = LiveOptions(watch=Watch(timeout_s=3, first_wait_s=0.1, longest_wait_s=0.5))


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_rtsp(server: RtspServer, transport: str) -> None:
    source = open_source(server.url, LiveOptions(transport=transport, watch=LIVE.watch))
    frames = list(islice(source, 10))
    source.close()
    assert source.info.frame_rate == 25
    assert all(frame.size == (160, 120) for frame in frames)
    seconds = frames[-1].pts_seconds - frames[0].pts_seconds
    assert 0.1 < seconds < 3


@pytest.mark.fault("Live sources", "server comes back with another size", done="160x120, killed, then 96x64")
def test_a_server_that_is_killed_and_comes_back_at_another_size(server: RtspServer, survived: Survived) -> None:
    source = open_source(server.url, LIVE)
    frames = iter(source)
    assert next(frames).size == (160, 120)
    server.kill()
    server.start(size=(96, 64))
    sizes = {next(frames).size for _ in range(40)}
    assert (96, 64) in sizes
    assert source.reconnects >= 1
    source.close()
    survived("the run continues; a file keeps its first size")


@pytest.mark.fault("Live sources", "server stalls", done="SIGSTOP for 2.5 s, timeout of 1 s")
def test_a_server_that_stalls(server: RtspServer, survived: Survived) -> None:
    source = open_source(server.url, LiveOptions(watch=Watch(timeout_s=1, first_wait_s=0.1, longest_wait_s=0.5)))
    frames = iter(source)
    next(frames)
    server.stall()
    threading.Timer(2.5, server.wake).start()
    began = time.monotonic()
    for _ in range(80):
        next(frames)
    assert source.reconnects >= 1
    assert time.monotonic() - began < 30
    source.close()
    survived(f"reconnected, counted: {source.reconnects}")


@pytest.mark.fault(
    "Live sources", "connections reset or held back", done="a TCP proxy resets them, then holds back all data"
)
def test_connections_that_are_held_back_or_reset(server: RtspServer, survived: Survived) -> None:
    proxy = Proxy(server.port)
    url = server.url.replace(str(server.port), str(proxy.port))
    source = open_source(url, LiveOptions(watch=Watch(timeout_s=1, first_wait_s=0.1, longest_wait_s=0.5)))
    frames = iter(source)
    next(frames)
    proxy.cut()
    for _ in range(60):
        next(frames)
    after_cut = source.reconnects
    assert after_cut >= 1
    proxy.hold()
    threading.Timer(2.0, proxy.flow).start()
    assert sum(1 for _ in islice(frames, 60)) == 60
    assert source.reconnects > after_cut
    source.close()
    proxy.close()
    survived(f"reconnected, counted: {source.reconnects}")


@pytest.mark.fault("Live sources", "server killed and started again", done="20 times in one run")
def test_twenty_restarts_leave_memory_and_threads_flat(server: RtspServer, tmp_path: Path, survived: Survived) -> None:
    """Through the command line: the run continues, the file plays, and the reconnections are counted."""
    import json
    import signal
    import subprocess
    import sys

    from tests.conftest import ROOT

    out, stats = tmp_path / "out.mp4", tmp_path / "stats.json"
    arguments = ["--source", server.url, "--out", str(out), "--stats", str(stats), "--timeout-s", "3"]
    command = [sys.executable, "-m", "runtime.video", *arguments, "--provider", "cpu"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    process = psutil.Process(child.pid)
    partial = out.with_name("out.partial.mp4")
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
    samples = []
    for _ in range(20):
        server.kill()
        server.start()
        wait_until(lambda: any(c.raddr and c.raddr.port == server.port for c in process.net_connections()))
        time.sleep(1.2)  # frames flow
        samples.append((process.memory_info().rss >> 20, process.num_threads(), process.num_fds()))
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == 130
    values = json.loads(stats.read_text())
    assert values["frames"]["reconnects"] >= 20
    assert sum(1 for _ in open_source(str(out))) == values["frames"]["written"] > 50
    early, late = np.array(samples[5:10]), np.array(samples[15:])
    assert (late.max(axis=0) <= early.max(axis=0) + np.array([24, 4, 4])).all(), samples
    peaks = " then ".join(str(part.max(axis=0).tolist()) for part in (early, late))
    counted = f"{values['frames']['reconnects']} reconnections; the file plays"
    survived(f"{counted}; MiB, threads, descriptors at most {peaks}", code=130)


def test_colours_are_those_of_the_server() -> None:
    require_rtsp_server()
    server = RtspServer(pattern="red")
    try:
        source = open_source(server.url, LIVE)
        frame = next(iter(source))
        source.close()
    finally:
        server.kill()
    assert np.abs(frame.pixels.astype(int) - [0, 0, 255]).mean() < 6
