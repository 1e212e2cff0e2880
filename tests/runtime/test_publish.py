"""Publishing to real RTSP and RTMP servers on loopback, which stall, go away and come back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import psutil
import pytest

from runtime.errors import OutputError
from runtime.frame import Frame
from runtime.sinks import open_sink
from runtime.sinks.publish import PublishSink
from runtime.sources import open_source
from runtime.sources.base import SourceInfo
from runtime.video import main
from tests.conftest import DEMO_CLIP, Survived, make_image, write_clip, write_engine
from tests.rig import SYSTEM_PYTHON, free_port, require_rtsp_server, skip_without_gstreamer, wait_until

LIVE = SourceInfo(name="test", time_base=Fraction(1, 25), frame_rate=Fraction(25), is_live=True)
OPTIONS = ["--guard", "off", "--provider", "cpu", "--threads", "1"]
RTMP_SERVER = """
import sys, av
count = 0
with av.open(sys.argv[1], "r", options={"listen": "1"}, timeout=30) as container:
    try:
        for _ in container.decode(video=0):
            count += 1
    except av.FFmpegError:
        pass  # the publisher has left
print(count, flush=True)
"""


class Recorder:
    """A process that runs rtsp_recorder.py: an RTSP server that stores what is published to it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"rtsp://user:hidden@127.0.0.1:{self.port}/in"
        self.stored = folder / "stored.mkv"
        self.start()

    def start(self) -> None:
        script = Path(__file__).parent.parent / "rig" / "rtsp_recorder.py"
        command = [SYSTEM_PYTHON, script, str(self.port), self.stored]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.child.stdout
        assert self.child.stdout.readline().strip() == b"serving"

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()
        assert self.child.stdout
        self.child.stdout.close()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    require_rtsp_server()
    recorder = Recorder(tmp_path)
    yield recorder
    recorder.kill()


def frame(index: int, size: tuple[int, int] = (96, 64)) -> Frame:
    return Frame(pixels=make_image(*size), pts=index, time_base=Fraction(1, 25), captured_at=time.perf_counter())


@pytest.mark.parametrize("pixels", ["bgr", "yuv420"])
def test_a_file_is_published_at_its_own_pace(
    pixels: str, recorder: Recorder, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = invert
    if pixels == "yuv420":
        engine = write_engine(tmp_path / "invert_yuv420.onnx", shape=("n", "rows", "w"))
    start = time.monotonic()
    assert main(["--engine", str(engine), "--source", str(DEMO_CLIP), "--out", recorder.url, *OPTIONS]) == 0
    assert time.monotonic() - start > 3.9  # its 100 frames take 4 s
    wait_until(lambda: recorder.stored.exists() and recorder.stored.stat().st_size > 10_000)
    time.sleep(0.5)
    recorder.kill()
    shown = capsys.readouterr().err
    assert "output  rtsp://***@127.0.0.1" in shown
    assert "hidden" not in shown
    stored = list(open_source(str(recorder.stored)))
    assert len(stored) >= 90
    assert abs(float(stored[-1].pts_seconds - stored[0].pts_seconds) / (len(stored) - 1) - 0.04) < 0.004
    first = next(iter(open_source(str(DEMO_CLIP)))).pixels
    assert min(np.abs(255 - first.astype(int) - frame.pixels).mean() for frame in stored[:10]) < 6


@pytest.mark.parametrize("encoder", ["", "--codec hevc --crf 28", "--encoder gstreamer:x264enc --bitrate 1M"])
def test_rtmp(encoder: str, clip: Path, invert: Path, tmp_path: Path) -> None:
    if "x264enc" in encoder:
        skip_without_gstreamer("x264enc", "gdppay")
    write_clip(tmp_path / "a.mp4", size=(96, 64), pts=[512 * index for index in range(50)])
    url = f"rtmp://127.0.0.1:{free_port()}/live/a"
    server = subprocess.Popen([sys.executable, "-c", RTMP_SERVER, url], stdout=subprocess.PIPE)
    process = psutil.Process(server.pid)
    wait_until(lambda: any(each.status == psutil.CONN_LISTEN for each in process.net_connections()))
    assert (
        main(["--engine", str(invert), "--source", str(tmp_path / "a.mp4"), "--out", url, *OPTIONS, *encoder.split()])
        == 0
    )
    count, _ = server.communicate(timeout=30)
    assert int(count) >= (1 if encoder else 45)  # an encoder may start slowly


@pytest.mark.fault("Publishing", "server goes away", done="killed and started again while frames are published")
def test_a_server_that_goes_away_and_comes_back(recorder: Recorder, survived: Survived) -> None:
    sink = open_sink(recorder.url, LIVE)
    indices = iter(range(100_000))

    def send() -> bool:
        began = time.monotonic()
        sink.write(frame(next(indices)))
        assert time.monotonic() - began < 1 or not any("reconnections" in text for text in sink.warnings)
        time.sleep(0.02)
        return False

    for _ in range(20):
        send()
    recorder.kill()
    wait_until(lambda: send() or any("reconnections" in text for text in sink.warnings))
    recorder.stored.unlink()
    recorder.start()
    wait_until(lambda: send() or (recorder.stored.exists() and recorder.stored.stat().st_size > 5000))
    sink.close(complete=True)
    recorder.kill()
    assert "hidden" not in str(sink.warnings)
    assert any("frames were not published" in text for text in sink.warnings)
    assert next(iter(open_source(str(recorder.stored)))).size == (96, 64)
    survived("reconnected, counted; the run does not wait")


def test_another_size_opens_a_new_connection(recorder: Recorder) -> None:
    sink = open_sink(recorder.url, LIVE)
    indices = iter(range(100_000))

    def stored(size: tuple[int, int]) -> bool:
        sink.write(frame(next(indices), size))
        time.sleep(0.02)
        return recorder.stored.exists() and recorder.stored.stat().st_size > 2000

    wait_until(lambda: stored((96, 64)))
    first = recorder.stored.with_name("first.mkv")
    recorder.stored.rename(first)
    wait_until(lambda: stored((65, 49)))
    assert sink.close(complete=True) == f"rtsp://***@127.0.0.1:{recorder.port}/in"
    recorder.kill()
    assert next(iter(open_source(str(first)))).size == (96, 64)
    assert next(iter(open_source(str(recorder.stored)))).size == (64, 48)  # the odd row and column are cut off


@pytest.mark.parametrize("scheme", ["rtsp", "rtmp"])
def test_a_missing_server_is_an_error(
    scheme: str, clip: Path, invert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{scheme}://user:hidden@127.0.0.1:{free_port()}/in"
    assert main(["--engine", str(invert), "--source", str(clip), "--out", url, *OPTIONS]) == 6
    shown = capsys.readouterr().err
    assert f"error: cannot publish (Connection refused): {scheme}://***@127.0.0.1" in shown
    assert "hidden" not in shown


def test_other_schemes_are_refused(clip: Path, invert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--engine", str(invert), "--source", str(clip), "--out", "http://127.0.0.1/x", *OPTIONS]) == 2
    assert "cannot publish by http" in capsys.readouterr().err


@pytest.mark.fault("Publishing", "server stalls", done="SIGSTOP while frames flow, and before the first connection")
@pytest.mark.parametrize("connected", [True, False])
def test_a_server_that_stalls_does_not_block_the_run(
    recorder: Recorder, survived: Survived, *, connected: bool
) -> None:
    """The server stalls while frames flow, or does not answer a new connection; FFmpeg waits for ever in both cases."""
    sink = PublishSink(recorder.url, LIVE, timeout_s=2.0)
    if connected:
        sink.write(frame(0))
    recorder.child.send_signal(signal.SIGSTOP)
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    longest_s = 0.0
    began = time.monotonic()
    while time.monotonic() < began + 6:
        start = time.monotonic()
        try:
            sink.write(Frame(pixels=noise, pts=round(25 * start), time_base=Fraction(1, 25), captured_at=0.0))
        except OutputError as error:
            assert not connected
            assert "the server does not answer" in str(error)
            break
        longest_s = max(longest_s, time.monotonic() - start)
        time.sleep(0.01)
    else:
        assert connected
        assert longest_s < 1
        assert any("reconnections" in text and "does not answer" in text for text in sink.warnings)
    sink.close(complete=True)
    assert time.monotonic() - began < 12
    if connected:
        survived(f"no frame waited longer than {1e3 * longest_s:.0f} ms; reconnected, counted")
    else:
        survived("one line, if the first connection fails", code=6)
