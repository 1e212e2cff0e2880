"""Settings that the command line passes to the upload page."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from runtime.address import LOOPBACK, Address
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
    idle_memory_gib: float = 1.5
    """Memory in GiB above which that process is replaced after a job.

    Libraries keep much of the memory of a large image for the next one. What is left of `memory_gib` has to suffice
    for the largest upload: 2.0 GiB were measured, for an image of 40 million pixels with a reference on edge-l.
    """
    queue_length: int = 8
    """Number of uploads that may wait while another one is restored."""
    session_mb: int = 200
    """Size of the uploads in MB that one visitor may store: image, reference, and one each that replace them."""
    total_mb: int = 2000
    """Size of all uploads and results in MB that the server stores."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Engines, limits, and optional content of the upload page."""

    engines: tuple[str, ...]
    """Paths of the engines that a visitor can choose from."""
    provider: Provider
    """Library that runs an `.onnx` engine."""
    address: Address = field(default_factory=lambda: Address(LOOPBACK, 8501))
    """Address of the page."""
    other_names: tuple[str, ...] = ()
    """Other host names of the page, such as that of a proxy."""
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
        values |= {name: tuple(values[name]) for name in ("engines", "other_names")}
        values |= {"limits": Limits(**values["limits"]), "address": Address(**values["address"])}
        return cls(**values)
