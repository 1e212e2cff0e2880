"""Contract of a source: the facts that are known before its first frame, and the frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol, runtime_checkable

from runtime.errors import DeblurError
from runtime.frame import Frame, Size
from runtime.stream_format import PLAIN, StreamFormat


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Facts about a source that are known before its first frame is read; they never change."""

    name: str
    """Name for messages and reports: a path, a device, or an address without user name and password."""
    time_base: Fraction
    """Seconds per tick of a frame's `pts`."""
    frame_rate: Fraction
    """Nominal frames per second; the real time of a frame is its `pts`."""
    format: StreamFormat = PLAIN
    """Form in which the frames are stored, such as the shape of a pixel; outputs keep it."""
    size: Size | None = None
    """Width and height of the first frame in pixels; None if they are not known yet (image files)."""
    frame_count: int | None = None
    """Number of frames that the container or folder announces; None if it is not known. It may be wrong."""
    is_live: bool = False
    """Whether frames arrive at their own pace: a live source drops frames that are read too late, a file waits."""
    has_planes: bool = False
    """Whether the source can deliver its frames as planes (`Yuv420`) instead of BGR."""
    audio: Path | None = None
    """Media file whose sound belongs to the frames; None if there is no sound."""
    extras: Path | None = None
    """Media file with further tracks, chapters or tags, which belong to the frames; None if there are none."""
    files: tuple[Path, ...] = ()
    """All files that the source reads; outputs must not replace them."""
    root: Path | None = None
    """Folder of a folder or pattern of images, below which their outputs have the same tree; None for other sources."""


class Source(Protocol):
    """Reads frames in presentation order. Any class with these members is a source; it inherits from nothing.

    Opening: the constructor opens the file or device and finds the facts of `info`. It raises InputError if the source
    cannot be read, and SourceLostError if a live source cannot be reached.

    Threads: one thread iterates, once, and it may be another thread than the one that called the constructor. `info`,
    `warnings`, `dropped` and `reconnects` may be read from any thread at any time.

    Closing: the pipeline closes the source in the thread that iterates, at the end of the frames or after an error.
    Code that opens a source without giving it to a pipeline has to close it. A constructor that raises releases its
    files and devices first.
    """

    @property
    def info(self) -> SourceInfo:
        """Facts about the source."""
        ...

    @property
    def warnings(self) -> list[str]:
        """Sentences about frames that were skipped or repaired, and connections that were lost, so far."""
        ...

    @property
    def dropped(self) -> int:
        """Number of frames of a live source that a newer frame replaced before they were read; 0 for files."""
        ...

    @property
    def reconnects(self) -> int:
        """Number of times that a live source was opened again after its connection was lost; 0 for files."""
        ...

    @property
    def damage(self) -> DeblurError | None:
        """Error that explains why frames are missing at the end, although every frame that was read is right.

        It is set when the iteration has ended, for example for a file that was cut off; None if the source is complete.
        """
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in presentation order.

        The pixels of a frame are uint8[H, W, 3], BGR, full range 0..255, C-contiguous, upright, and owned by the
        frame: the source does not write to them again. A `PlanesSource` can deliver `Yuv420` instead. `pts` increases
        strictly, in ticks of `info.time_base` seconds. `captured_at` is `time.perf_counter()` when the frame arrived.
        The size may change between frames.

        A live source waits for its next frame. Raises InputError if nothing can be decoded, and SourceLostError if a
        live source does not come back.
        """
        ...

    def close(self) -> None:
        """Release files, devices and threads. A second call does nothing.

        The close method of a live source may be called from any thread, and ends an iteration that waits.
        """
        ...


@runtime_checkable
class PlanesSource(Source, Protocol):
    """A source that can deliver planes if its `info.has_planes` says so."""

    def deliver_planes(self) -> None:
        """Deliver frames as `Yuv420` with the colours of the first one; call it before the first frame is read."""
        ...


def damage_warnings(packets: int) -> list[str]:
    """Return a sentence about packets that could not be decoded, if there are any."""
    return [f"{packets} damaged packets could not be decoded and were skipped"] if packets else []
