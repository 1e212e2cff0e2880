"""Frames to calibrate with: read as the runtime reads them, chosen to cover what there is."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

from export.quantization.precision import Planes, Ranges
from runtime.errors import UsageError
from runtime.frame import Pixels
from runtime.sources import open_source

Method = Literal["minmax", "entropy", "percentile"]
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
CROP_PX = 256
"""Frames are cropped about their middle to this, so that memory does not depend on the camera."""
LEAST_FRAMES = 8
MOST_READ = 2_000
"""Of a longer video every second, fourth, ... frame is kept, so that its end counts as much as its beginning."""
LEAST_CORRELATION = 0.3
"""Of neighbouring pixels. Photographs have more than 0.9, blurred or noisy; random numbers none."""


def read_frames(where: Path) -> list[Pixels]:
    """Frames of a folder, a picture or a video, cropped: uint8[H, W, 3] BGR, H and W at most 256.

    Raises UsageError if they are too few, too much alike, or random numbers; InputError if they
    cannot be read.
    """
    hint = f"give at least {LEAST_FRAMES} different frames of the camera that the engine is for"
    source = open_source(str(where))
    try:
        frames = _spread(_middle(frame.pixels) for frame in source)
    finally:
        source.close()
    different = list({hashlib.sha256(frame.tobytes()).digest(): frame for frame in frames}.values())
    if len(different) < LEAST_FRAMES:
        raise UsageError(
            f"{len(frames)} frames to calibrate with, {len(different)} of them different", where, hint=hint
        )
    if np.median([_correlation(frame) for frame in different]) < LEAST_CORRELATION:
        raise UsageError("frames to calibrate with look like random numbers", where, hint=hint)
    return different


def traits(frame: Pixels) -> NDArray[np.float64]:
    """Sharpness (log variance of the Laplacian), brightness, and detail (log variance) of a frame."""
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float64)
    return np.array([np.log1p(cv2.Laplacian(gray, cv2.CV_64F).var()), gray.mean(), np.log1p(gray.var())])


def chosen(frames: list[Pixels], count: int) -> list[Pixels]:
    """The `count` frames that cover the range of blur, brightness and detail best, in their order.

    Starting from the most ordinary one, the frame furthest from all taken is taken next (Gonzalez 1985).
    """
    if len(frames) <= count:
        return frames
    points = np.stack([traits(frame) for frame in frames])
    points = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-9)
    taken = [int(np.argmin(np.linalg.norm(points, axis=1)))]
    distance = np.linalg.norm(points - points[taken[0]], axis=1)
    while len(taken) < count:
        taken.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(points - points[taken[-1]], axis=1))
    return [frames[index] for index in sorted(taken)]


def planes(engine: onnx.ModelProto, name: str, frames: list[Pixels]) -> list[Planes]:
    """Frames as the network inside an engine gets them, in the tensor `name`: the engine itself pads and scales."""
    probe = onnx.ModelProto()
    probe.CopyFrom(engine)
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run([name], {probe.graph.input[0].name: frame[np.newaxis]})[0] for frame in frames]


def ranges(core: onnx.ModelProto, planes: list[Planes], method: Method) -> Ranges:
    """The range of every tensor of a float core on these inputs, by ONNX Runtime's calibrators."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.onnx"
        onnx.save(core, path)
        calibrator = create_calibrator(
            str(path),
            None,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=_METHODS[method],
            extra_options={"symmetric": False},
        )
        with redirect_stdout(io.StringIO()):  # it prints what it does
            for each in planes:  # one at a time: a calibrator holds all that it is given at once
                calibrator.collect_data(_Reader(core.graph.input[0].name, each))
            found = calibrator.compute_data()
    bounds = {name: data.range_value for name, data in found.items()}
    return {name: (float(np.min(low)), float(np.max(high))) for name, (low, high) in bounds.items()}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """One input, once."""

    def __init__(self, name: str, planes: Planes) -> None:
        self._inputs: Iterator[dict[str, Any]] = iter([{name: planes}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)


def _spread(frames: Iterable[Pixels]) -> list[Pixels]:
    """At most `MOST_READ` of the frames, evenly spaced, without knowing how many will come."""
    kept: list[Pixels] = []
    every = 1
    for index, frame in enumerate(frames):
        if index % every == 0:
            kept.append(frame)
        if len(kept) > MOST_READ:
            kept, every = kept[::2], 2 * every
    return kept


def _middle(frame: Pixels) -> Pixels:
    top, left = (max(0, (side - CROP_PX) // 2) for side in frame.shape[:2])
    return np.ascontiguousarray(frame[top : top + CROP_PX, left : left + CROP_PX])


def _correlation(frame: Pixels) -> float:
    """Of each pixel with its right neighbour; a frame of one colour counts as wholly correlated."""
    gray = frame.mean(axis=2)
    left, right = gray[:, :-1].ravel(), gray[:, 1:].ravel()
    if left.std() < 1e-6 or right.std() < 1e-6:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])
