"""Surroundings of the runtime in tests: servers, proxies, and runs in which calls fail."""

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

from runtime.gstreamer import has_element

SYSTEM_PYTHON = "/usr/bin/python3"
_NEEDS = "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0')"


def free_port() -> int:
    """Return a TCP port on loopback that nothing uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def require_rtsp_server() -> None:
    """Skip the test if Debian's packages for an RTSP server are not installed; CI installs them."""
    if os.environ.get("CI"):
        return
    is_installed = (
        shutil.which(SYSTEM_PYTHON)
        and not subprocess.run([SYSTEM_PYTHON, "-c", _NEEDS], capture_output=True, check=False).returncode
    )
    if not is_installed:
        pytest.skip("no RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly")


def skip_without_gstreamer(*elements: str) -> None:
    """Skip the test if an element of GStreamer is not installed; CI installs them."""
    missing = [element for element in elements if not has_element(element)]
    if missing:
        assert not os.environ.get("CI"), f"CI installs {missing}"
        pytest.skip(
            f"no {' and '.join(missing)}: apt install gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly "
            "gstreamer1.0-libav"
        )


class RtspServer:
    """A process that runs rtsp_server.py, and can be stalled, killed and started again."""

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
        """Stop the process; connections stay open but are silent."""
        assert self._child
        self._child.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Continue the stopped process."""
        assert self._child
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._child:
            self._child.kill()
            self._child.communicate()
            self._child = None


class Proxy:
    """Forwards TCP connections to another port on loopback; it can hold back all data and reset all connections."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._open: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """Hold back all data."""
        self._flowing.clear()

    def flow(self) -> None:
        """Forward data again."""
        self._flowing.set()

    def cut(self) -> None:
        """Reset every connection."""
        for connection in self._open:
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.close()
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
            for sender, receiver in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(sender, receiver), daemon=True).start()

    def _copy(self, sender: socket.socket, receiver: socket.socket) -> None:
        try:
            while data := sender.recv(65_536):
                self._flowing.wait()
                receiver.sendall(data)
        except OSError:
            pass


def handles_signal(child: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Return whether a process has a handler for a signal at this moment."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Poll a condition until it holds; fails after some seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"condition does not hold after {seconds:g} s"
        time.sleep(0.02)
