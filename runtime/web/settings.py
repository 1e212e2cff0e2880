"""Settings that the command line passes to the upload page."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from runtime.engines import Provider


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one upload, and of the queue."""

    upload_mb: int = 50
    """Largest size of a file in MB (10**6 bytes)."""
    image_px: int = 40_000_000
    """Largest number of pixels of an image."""
    video_px: int = 1920 * 1080
    """Largest number of pixels of a frame of a video."""
    video_s: float = 20.0
    """Longest duration of a video in seconds."""
    video_frames: int = 1200
    """Largest number of frames of a video."""
    job_s: float = 300.0
    """Seconds after which a job is stopped."""
    memory_gib: float = 4.0
    """Memory in GiB of the process that decodes and restores."""
    queue_length: int = 8
    """Number of uploads that may wait while another one is restored."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Engines, limits, and optional content of the upload page."""

    engines: tuple[str, ...]
    """Paths of the engines that a visitor can choose from."""
    provider: Provider
    """Library that runs an `.onnx` engine."""
    limits: Limits = field(default_factory=Limits)
    sample_blurred: str | None = None
    """Path of the blurred sample clip; None for a page without samples."""
    sample_sharp: str | None = None
    """Path of the sharp sample clip, the reference of `sample_blurred`."""
    reports: str | None = None
    """Folder of benchmark reports, `NAME/report.html` for each; None for a page without reports."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        values = json.loads(text)
        values |= {"engines": tuple(values["engines"]), "limits": Limits(**values["limits"])}
        return cls(**values)
