"""Frames for INT8 calibration, and pairs with ground truth to measure engines on; see README.md."""

from pathlib import Path

CALIBRATION = Path(__file__).with_name("calibration")
"""Folder of blurred frames that INT8 engines are calibrated with."""
HELD_OUT = Path(__file__).with_name("held_out")
"""Folder of pairs, `blur/NAME` and `sharp/NAME`, that no engine is calibrated with."""
