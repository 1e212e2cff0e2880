"""Messages between the job queue and the worker process, one JSON object a line.

The queue sends a `Job`. The worker sends `{"engines": ...}` once its engines are loaded. For each job it sends any
number of `JobProgress`, and then either `{"result": ...}` with the fields of `JobResult` except `files`, or
`{"refused": ..., "hint": ...}`, with `"out_of_memory": true` if that is the reason. It also sends the latter instead of
the engines if one of them cannot be opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from runtime.errors import DeblurError

Message = dict[str, Any]


class RefusedError(DeblurError):
    """An upload is not restored; the text never contains a path of this machine."""

    exit_code = 3


@dataclass(frozen=True, kw_only=True)
class Job:
    """Files of an upload, whose type `uploads.detect_suffix` has checked."""

    engine: str
    """Path of the engine."""
    source: str
    """Path of the image or video to restore."""
    reference: str | None
    """Path of its sharp reference, to measure PSNR and SSIM against."""
    folder: str
    """Folder where the worker writes the results."""


@dataclass(frozen=True, kw_only=True)
class JobProgress:
    """Progress of a job: its place in the queue, then the number of its restored frames."""

    jobs_ahead: int = 0
    frames: int = 0
    frame_count: int = 0
    """Number of frames to restore, as far as it is known."""
    fps: float = 0.0


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """Result of a job."""

    files: dict[str, bytes]
    """Content by name: `before.jpg`, `after.jpg`, `side_by_side.jpg` and `restored` with the suffix of the upload for
    an image; `restored.mp4` and `side_by_side.mp4` for a video."""
    frames: int
    fps: float
    engine_ms: float
    """Median time of the engine for a frame in milliseconds."""
    warnings: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    """Mean PSNR (dB) and SSIM of input and result; empty without a reference. See `job.measure_scores`."""


def is_final(message: Message) -> bool:
    """Whether a message of the worker ends a job."""
    return "result" in message or "refused" in message
