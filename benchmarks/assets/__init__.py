"""Paths of the demo clip, and generators of the demo clip and of the calibration frames."""

from pathlib import Path

CLIPS = Path(__file__).parents[1] / "clips"
DEMO_BLURRED = CLIPS / "demo_blurred.mp4"
DEMO_SHARP = CLIPS / "demo_sharp.mp4"
"""Ground truth of `DEMO_BLURRED`; both clips have the same frames and times."""
