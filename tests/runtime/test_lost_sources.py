"""Streams that are lost, beyond those of test_faults.py: RTMP, UDP from nobody, and what is said of an address."""

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


@pytest.mark.fault("Live sources", "nobody sends", done="UDP, a port that nothing comes to")
def test_udp_without_a_sender(survived: Survived) -> None:
    began = time.monotonic()
    with pytest.raises(SourceLostError, match="no frame for 2 s") as caught:
        open_source(f"udp://127.0.0.1:{free_port()}", QUICK)
    assert time.monotonic() - began < 9  # it would wait for ever
    survived("given up after the time that was set", code=caught.value.exit_code)


def connected(url: str, seconds: float = 30) -> Source:
    """FFmpeg's server takes one viewer, and a moment to be there."""
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
def test_rtmp_comes_back(survived: Survived) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("no RTMP server: apt install ffmpeg")
    url = f"rtmp://127.0.0.1:{free_port()}/live/a"

    def serve() -> subprocess.Popen[bytes]:
        picture = ["-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=25"]
        encoder = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-tune", "zerolatency", "-g", "10", "-f", "flv"]
        return subprocess.Popen([ffmpeg, "-v", "quiet", *picture, *encoder, "-listen", "1", url])

    server = serve()
    try:
        source = connected(url)
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
    survived("connected again, counted")


@pytest.mark.fault("Live sources", "password in an address", done="HTTP with one, lost for good; refused; with --debug")
def test_a_password_is_nowhere(broadcast: bytes, invert: Path, tmp_path: Path, survived: Survived) -> None:
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
    for said in (lost, stats.read_text(), refused.stderr.decode()):
        assert "***@127.0.0.1" in said
        assert "hidden" not in said
    assert "Traceback" in lost
    survived("in no message, traceback or report", code=5)
