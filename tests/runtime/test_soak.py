"""A camera on a bad network, for an hour (`pytest -m soak`) or for half a minute: nothing grows, everything plays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import psutil
import pytest

from runtime.sources import open_source
from tests.conftest import ROOT, Survived
from tests.rig import Proxy, RtspServer, free_port, require_rtsp_server, wait_until


def count_reconnects(port: int) -> int:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        (line,) = [line for line in answer.read().decode().splitlines() if line.startswith("deblur_reconnects_total")]
    return int(line.split()[-1])


@pytest.mark.fault("Live sources", "a bad day", done="stalls, kills, another size, resets and held connections in turn")
@pytest.mark.timeout(4500)
@pytest.mark.parametrize("seconds", [40, pytest.param(3600, marks=pytest.mark.soak)])
def test_nothing_grows(seconds: float, invert: Path, tmp_path: Path, survived: Survived) -> None:
    require_rtsp_server()
    server = RtspServer()
    proxy, port = Proxy(server.port), free_port()
    url = server.url.replace(str(server.port), str(proxy.port))
    stats = tmp_path / "s.json"
    options = ["--timeout-s", "2", "--segment-s", "10", "--stats", str(stats), "--guard", "off", "--provider", "cpu"]
    arguments = ["--engine", str(invert), "--source", url, "--out", str(tmp_path / "day.mp4"), *options]
    arguments += ["--serve", f"127.0.0.1:{port}"]
    child = subprocess.Popen([sys.executable, "-m", "runtime.video", *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    process = psutil.Process(child.pid)
    figures, induced = [], 0
    try:
        wait_until(lambda: any(tmp_path.glob("day_*.mp4")))
        end = time.monotonic() + seconds
        for fault in cycle(("reset", "stall", "kill", "hold", "size")):
            if time.monotonic() > end:
                break
            if fault == "reset":
                proxy.cut()
            elif fault == "stall":
                server.stall()
                time.sleep(4)
                server.wake()
            elif fault == "hold":
                proxy.hold()
                time.sleep(4)
                proxy.flow()
            else:
                server.kill()
                server.start(size=(96, 64) if fault == "size" else (160, 120))
            induced += 1
            wait_until(lambda induced=induced: count_reconnects(port) >= induced, seconds=60)
            time.sleep(4)
            figures.append((process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()))
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 130
    finally:
        child.kill()
        proxy.close()
        server.kill()
    counts = json.loads(stats.read_text())
    assert counts["frames"]["reconnects"] >= induced
    assert counts["latency_ms"]["total"]["p99"] < 500
    parts = [sum(1 for _ in open_source(str(path))) for path in sorted(tmp_path.glob("day_*.mp4"))]
    assert sum(parts) == counts["frames"]["written"] > 5 * induced
    half = len(figures) // 2
    early, late = np.array(figures[1:half]), np.array(figures[half:])
    assert late[:, 0].max() <= early[:, 0].max() + 32, figures  # MiB: a decoder of another size
    # A new connection has threads and files while the old one still ends; a leak would be in every sample.
    assert (late[:, 1:].min(axis=0) <= early[:, 1:].max(axis=0)).all(), figures
    survived(
        f"{induced} faults in {seconds:.0f} s, {counts['frames']['reconnects']} reconnects, all {len(parts)} segments "
        f"play; at most {early[:, 0].max():.0f} MiB in the first half, {late[:, 0].max():.0f} in the second",
        code=130,
    )
