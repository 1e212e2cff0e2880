"""GStreamer in a child process, `gst-launch-1.0`, with frames or packets and their times on pipes of its own.

Both pipes carry the GStreamer Data Protocol (`runtime.gdp`).
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import lru_cache
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from time import monotonic

from runtime.errors import UsageError
from runtime.gdp import Buffer, Reader, find_event, pack_caps, pack_header

LAUNCH = "gst-launch-1.0"
PREFIX = "gstreamer:"
"""Prefix of the name of an encoder or decoder that is an element of GStreamer."""
FORMATS = {
    "yuv420p": "I420",
    "nv12": "NV12",
    "yuv422p": "Y42B",
    "yuv444p": "Y444",
    "yuv420p10le": "I420_10LE",
    "p010le": "P010_10LE",
    "yuv422p10le": "I422_10LE",
    "yuv444p10le": "Y444_10LE",
}
"""GStreamer's names of pixel formats by FFmpeg's."""
_CHUNK_BYTES = 1 << 20
"""Largest size of one read or write on a pipe."""
_TIMEOUT_S = 60.0
"""Seconds without a byte in either direction after which a child is given up."""
_LOOK_S = 0.5
"""Seconds between two looks at the messages of a child that is silent."""
_END_S = 5.0
"""Seconds that a child may take to end after its last byte."""
_MESSAGE_BYTES = 4000


class GStreamerError(OSError):
    """The child process has failed; the text is its own first message."""


class GStreamerChild:
    """Elements of GStreamer that buffers pass through; `caps` is the format of those that are sent.

    `send` and `finish` return what the elements have made, without a thread or a queue of ours. A child that makes
    nothing for a minute is given up. Raises UsageError if GStreamer is not installed, GStreamerError if the child
    fails.
    """

    def __init__(self, elements: str, caps: str) -> None:
        require_gstreamer()
        self._received = Reader()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        child_in, self._input = os.pipe()
        self._output, child_out = os.pipe()
        for pipe in (self._input, self._output):
            os.set_blocking(pipe, False)
        pipeline = (
            f"fdsrc fd={child_in} blocksize={_CHUNK_BYTES} ! gdpdepay ! {elements} ! gdppay ! "
            f"fdsink fd={child_out} sync=false"
        )
        try:
            self._child = subprocess.Popen(  # noqa: S603
                [LAUNCH, "--quiet", *shlex.split(pipeline)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # elements print there
                stderr=self._messages,
                pass_fds=(child_in, child_out),
                start_new_session=True,  # Ctrl-C is for the parent, which ends the child
            )
        finally:
            os.close(child_in)
            os.close(child_out)
        start, segment = _read_opening_events()
        self._pending = start + pack_caps(caps) + segment
        self._is_open = True

    def send(
        self, content: bytes | memoryview, *, seconds: Fraction, decoding_s: Fraction | None = None
    ) -> list[Buffer]:
        """Send a frame or packet with its times and return the buffers that have come back meanwhile."""
        parts = [self._pending, pack_header(content, seconds, decoding_s), content]
        self._pending = b""
        return [buffer for part in parts for buffer in self._exchange(memoryview(part).cast("B"))]

    def finish(self) -> Iterator[Buffer]:
        """End the input and yield what is left; raises GStreamerError unless the child ends well."""
        if self._input >= 0:
            os.close(self._input)
            self._input = -1
        with DefaultSelector() as selector:
            selector.register(self._output, EVENT_READ)
            while self._select(selector) and self._read():
                yield from self._parse()
        yield from self._parse()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_END_S)
        if self._child.returncode != 0 or self._received.has_rest:
            raise self._failure()

    def close(self) -> None:
        """End the child at once; a second call does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        for pipe in (self._input, self._output):
            if pipe >= 0:
                os.close(pipe)
        with suppress(ProcessLookupError):
            self._child.kill()
        self._child.wait()
        self._messages.close()

    def _exchange(self, content: memoryview) -> Iterator[Buffer]:
        """Write bytes, and read whenever the child has to be relieved before it takes more."""
        with DefaultSelector() as selector:
            selector.register(self._output, EVENT_READ)
            selector.register(self._input, EVENT_WRITE)
            while content:
                for pipe in self._select(selector):
                    if pipe == self._output and not self._read():
                        raise self._failure()
                    if pipe == self._input:
                        content = content[self._write(content) :]
                yield from self._parse()

    def _write(self, content: memoryview) -> int:
        try:
            return os.write(self._input, content[:_CHUNK_BYTES])
        except BlockingIOError:
            return 0
        except BrokenPipeError as error:
            raise self._failure() from error

    def _read(self) -> bool:
        """Read what is there; return False at the end of the output."""
        try:
            content = os.read(self._output, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._received.add(content)
        return bool(content)

    def _select(self, selector: DefaultSelector) -> list[int]:
        """Return the pipes that are ready; raises GStreamerError if the child has failed, or is silent for too long.

        After an error, gst-launch sometimes waits for ever instead of ending.
        """
        end = monotonic() + _TIMEOUT_S
        while not (events := selector.select(_LOOK_S)):
            if b"ERROR" in self._read_messages():
                raise self._failure()
            if monotonic() > end:
                raise self._failure(f"no answer for {_TIMEOUT_S:g} s")
        return [key.fd for key, _ in events]

    def _read_messages(self) -> bytes:
        return os.pread(self._messages.fileno(), _MESSAGE_BYTES, 0)

    def _parse(self) -> Iterator[Buffer]:
        """Yield the whole buffers of what was read."""
        try:
            yield from self._received.take()
        except ValueError as error:
            raise self._failure(str(error)) from error

    def _failure(self, reason: str = "") -> GStreamerError:
        """Return the error for a child that has ended or does not answer."""
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_LOOK_S)  # its last message
        lines = self._read_messages().decode(errors="replace").splitlines()
        return GStreamerError(reason or _find_reason(lines) or f"{LAUNCH} has ended")


def require_gstreamer() -> None:
    """Raise UsageError unless `gst-launch-1.0` and the protocol on its pipes are installed."""
    if shutil.which(LAUNCH) is None:
        raise UsageError(f"{LAUNCH} is not installed", hint="apt install gstreamer1.0-tools gstreamer1.0-plugins-bad")
    if not has_element("gdppay"):
        raise UsageError("GStreamer has no element gdppay", hint="apt install gstreamer1.0-plugins-bad")


def has_element(name: str) -> bool:
    """Return whether GStreamer has an element of this name."""
    inspect = shutil.which("gst-inspect-1.0")
    command = [inspect or "", "--exists", name]
    return inspect is not None and not subprocess.run(command, capture_output=True, check=False).returncode  # noqa: S603


@lru_cache
def _read_opening_events() -> tuple[bytes, bytes]:
    """Return the events that begin a stream, to be sent before and after its caps, as this GStreamer writes them."""
    pipeline = "audiotestsrc num-buffers=1 ! gdppay ! fdsink fd=1"
    answer = subprocess.run([LAUNCH, "--quiet", *pipeline.split()], capture_output=True, check=False)  # noqa: S603
    events = {name: find_event(answer.stdout, name) for name in ("StreamStart", "Segment")}
    if not all(events.values()):
        raise GStreamerError(
            _find_reason(answer.stderr.decode(errors="replace").splitlines()) or "gdppay does not work"
        )
    return events["StreamStart"], events["Segment"]


def _find_reason(lines: Sequence[str]) -> str:
    """Return the error in what gst-launch has printed, without the name of its pipeline."""
    for line in lines:
        if match := re.match(r"(?:WARNING: )?(?:ERROR: |erroneous pipeline: )(.*)", line):
            return re.sub(r"^(from|pipeline could not be constructed:) (element )?\S*: ", "", match[1]).rstrip(".")
    return next((line.strip() for line in lines if line.strip()), "")
