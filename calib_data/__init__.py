"""Frames for INT8 calibration, and other frames with ground truth to prove engines on; see README.md."""

from pathlib import Path

CALIBRATION = Path(__file__).with_name("calibration")
"""Folder of blurred frames whose value ranges an INT8 engine is calibrated with."""
HELD_OUT = Path(__file__).with_name("held_out")
"""Folder of pairs, `blur/NAME` and `sharp/NAME`, that no engine is calibrated with."""
