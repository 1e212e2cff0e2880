"""What the command line tells the page."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from runtime.engines import Provider


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one visitor may ask for."""

    upload_mb: int = 50
    picture_px: int = 40_000_000
    video_px: int = 1920 * 1080
    video_s: float = 20.0
    video_frames: int = 1200
    job_s: float = 300.0
    """Until a job is stopped, whatever it does."""
    memory_gib: float = 4.0
    """Of the process that decodes and sharpens."""
    waiting: int = 8
    """Uploads that may wait for the one that is being sharpened."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Engines to choose from, by path, and what runs them."""

    engines: tuple[str, ...]
    provider: Provider
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        values = json.loads(text)
        return cls(
            engines=tuple(values["engines"]), provider=values["provider"], limits=Limits(**values.get("limits", {}))
        )
