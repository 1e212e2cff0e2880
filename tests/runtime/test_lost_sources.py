"""Lost streams, in addition to those of test_faults.py: RTMP, UDP without a sender, passwords in addresses."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from runtime.errors import SourceLostError
from runtime.sources import LiveOptions, Source, Watch, open_source
from tests.conftest import ROOT, Survived
from tests.rig import free_port, wait_until
from tests.runtime.test_faults import Television, broadcast, command

__all__ = ["broadcast"]  # a fixture

QUICK = LiveOptions(watch=Watch(timeout_s=2, open_s=2, first_wait_s=0.1, longest_wait_s=0.5))


@pytest.mark.fault("Live sources", "no sender", done="UDP port that receives nothing")
def test_udp_without_a_sender(survived: Survived) -> None:
    start = time.monotonic()
    with pytest.raises(SourceLostError, match="no frame for 2 s") as caught:
        open_source(f"udp://127.0.0.1:{free_port()}", QUICK)
    assert time.monotonic() - start < 9  # it would wait for ever
    survived("given up after --open-s", code=caught.value.exit_code)


def open_when_ready(url: str, seconds: float = 30) -> Source:
    """Open a stream of FFmpeg's own server, which accepts one viewer and needs a moment to start."""
    end = time.monotonic() + seconds
    while True:
        try:
            return open_source(
                url, LiveOptions(watch=Watch(timeout_s=5, open_s=10, first_wait_s=0.5, longest_wait_s=1))
            )
        except SourceLostError:
            assert time.monotonic() < end
            time.sleep(0.2)


@pytest.mark.fault("Live sources", "RTMP server goes away", done="killed, and started again")
def test_rtmp_is_read_again_after_a_restart(survived: Survived) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no RTMP server: apt install ffmpeg")
    url = f"rtmp://127.0.0.1:{free_port()}/live/a"

    def serve() -> subprocess.Popen[bytes]:
        video = ["-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=25"]
        encoder = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-tune", "zerolatency", "-g", "10", "-f", "flv"]
        return subprocess.Popen([ffmpeg, "-v", "quiet", *video, *encoder, "-listen", "1", url])

    server = serve()
    try:
        source = open_when_ready(url)
        frames = iter(source)
        assert [next(frames).size for _ in range(10)] == [(160, 120)] * 10
        server.kill()
        server.wait()
        server = serve()
        end = time.monotonic() + 30
        while not source.reconnects or next(frames).size != (160, 120):
            next(frames)
            assert time.monotonic() < end
        assert next(frames).size == (160, 120)
        source.close()
    finally:
        server.kill()
        server.wait()
    survived("reconnected, counted")


@pytest.mark.fault(
    "Live sources", "password in an address", done="HTTP; connection lost, connection refused; with --debug"
)
def test_a_password_is_never_shown(broadcast: bytes, invert: Path, tmp_path: Path, survived: Survived) -> None:
    port = free_port()
    server = Television(broadcast, port)
    out, stats = tmp_path / "out.mp4", tmp_path / "s.json"
    url = f"http://admin:hidden@127.0.0.1:{port}/live.ts?token=hidden"
    options = ["--stats", stats, "--timeout-s", "1", "--max-reconnects", "1", "--debug"]
    child = subprocess.Popen(command(invert, url, out, *options), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    partial = tmp_path / "out.partial.mp4"
    wait_until(lambda: partial.exists() and partial.stat().st_size > 0)
    server.hang_up()
    _, lost = child.communicate(timeout=60)
    assert child.returncode == 5, lost
    refused = subprocess.run(command(invert, url, "null", "--debug"), cwd=ROOT, capture_output=True, check=False)
    assert refused.returncode == 5
    for text in (lost, stats.read_text(), refused.stderr.decode()):
        assert "***@127.0.0.1" in text
        assert "hidden" not in text
    assert "Traceback" in lost
    survived("in no message, traceback or statistics file", code=5)
