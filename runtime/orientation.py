"""Rotation and mirroring of decoded frames, which the display matrix of a container asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.hdr_metadata import read_side_data

Sample = TypeVar("Sample", np.uint8, np.uint16)
"""Type of the values of an image or of a plane: of 8 bits, or of more."""
_ROTATIONS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


@dataclass(frozen=True)
class Orientation:
    """What makes a decoded frame upright: it is mirrored first, then rotated."""

    rotation: int = 0
    """Degrees, counter-clockwise; only multiples of 90 are applied."""
    is_mirrored: bool = False
    """Whether left and right are exchanged."""

    @classmethod
    def read(cls, frame: av.VideoFrame) -> Orientation:
        """Return the orientation that a decoded frame states."""
        stated = read_side_data(frame).get("DISPLAYMATRIX")
        if stated is None:
            return cls(frame.rotation)
        # A stored point (x, y) is shown at (a x + c y, b x + d y).
        a, b, _, c, d = map(float, np.frombuffer(bytes(stated), np.int32)[:5])
        if a * d - b * c >= 0:
            return cls(frame.rotation)
        return cls(-round(math.degrees(math.atan2(-b, -a))), is_mirrored=True)

    def apply(self, image: NDArray[Sample]) -> NDArray[Sample]:
        """Turn an image [H, W, ...] or a plane [H, W] upright."""
        code = _ROTATIONS.get(self.rotation % 360)
        if self.is_mirrored:
            image = np.asarray(cv2.flip(np.ascontiguousarray(image), 1), image.dtype)
        return image if code is None else np.asarray(cv2.rotate(np.ascontiguousarray(image), code), image.dtype)


UPRIGHT = Orientation()
