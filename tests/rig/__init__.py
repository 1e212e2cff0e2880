"""What the tests bring up around the runtime: servers, proxies, sources that fail on purpose."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SYSTEM_PYTHON = "/usr/bin/python3"
_NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0')"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def require_rtsp_server() -> None:
    """Skip where Debian's packages are not installed; CI installs them."""
    if os.environ.get("CI"):
        return  # which installs them
    found = (
        shutil.which(SYSTEM_PYTHON)
        and not subprocess.run([SYSTEM_PYTHON, "-c", _NEEDS], capture_output=True, check=False).returncode
    )
    if not found:
        pytest.skip("no RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly")


class RtspServer:
    """rtsp_server.py in a process of its own, which can be stalled, killed and started again."""

    def __init__(self, *, size: tuple[int, int] = (160, 120), fps: int = 25, pattern: str = "ball") -> None:
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self._child: subprocess.Popen[bytes] | None = None
        self.start(size=size, fps=fps, pattern=pattern)

    def start(self, *, size: tuple[int, int] = (160, 120), fps: int = 25, pattern: str = "ball") -> None:
        script = Path(__file__).with_name("rtsp_server.py")
        arguments = [str(value) for value in (self.port, *size, fps, pattern)]
        self._child = subprocess.Popen([SYSTEM_PYTHON, script, *arguments], stdout=subprocess.PIPE)
        assert self._child.stdout
        assert self._child.stdout.readline().strip() == b"serving"

    def stall(self) -> None:
        assert self._child
        self._child.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._child
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._child:
            self._child.kill()
            self._child.communicate()
            self._child = None


class Proxy:
    """TCP to another port on loopback; it can hold everything back, or cut all connections."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._open: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for each in self._open:
            try:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.close()
            except OSError:
                pass
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()
        self.flow()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._open += [client, server]
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(one, other), daemon=True).start()

    def _copy(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65_536):
                self._flowing.wait()
                other.sendall(data)
        except OSError:
            pass


def catches(child: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether a process handles a signal by now, or still."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
