"""What every source promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from runtime.errors import DeblurError
from runtime.frame import Frame, Size


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """Facts about a source that are known before its first frame is taken."""

    name: str
    """For messages: a path or a device, without passwords."""
    time_base: Fraction
    """Seconds per tick of its frames' `pts`."""
    frame_rate: Fraction
    """Nominal frames per second; the frames' own `pts` are what counts."""
    size: Size | None = None
    """Width and height of its first frame, where that is known."""
    frame_count: int | None = None
    """Frames to expect, where the container says so."""
    is_live: bool = False
    """Whether frames come whether or not they are taken: such a source drops, a file waits."""
    audio: Path | None = None
    """The file whose sound belongs to the frames."""
    files: tuple[Path, ...] = ()
    """All files it reads, none of which may be written to."""


class Source(Protocol):
    """Frames in the order in which they are to be shown, from one thread."""

    @property
    def info(self) -> SourceInfo: ...

    @property
    def warnings(self) -> list[str]:
        """What was skipped or mended so far, a sentence each."""
        ...

    @property
    def dropped(self) -> int:
        """Frames that a newer one replaced before they were taken; files have none."""
        ...

    @property
    def reconnects(self) -> int:
        """How often it was opened again."""
        ...

    @property
    def damage(self) -> DeblurError | None:
        """After the last frame: why these cannot be all, although none is wrong."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Release files and devices; safe to call twice, and for a live source from any thread."""
        ...
