"""Calibration: reading frames, selecting those that cover the scenes, and measuring the range of every tensor."""

from __future__ import annotations

import hashlib
import io
import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import CalibrationDataReader, create_calibrator

from export.config import Method
from export.graph.measure import Nchw, list_float_tensors, measure_extremes, measure_shapes
from export.quantization.int8 import Ranges
from runtime.errors import UsageError
from runtime.frame import Pixels
from runtime.sources import open_source

_HISTOGRAM_METHODS = {
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
CROP_PX = 256
"""Side of the square about the centre to which frames are cropped; bounds the memory for frames of any camera."""
HISTOGRAM_BYTES = 2_000_000_000
"""Size of all tensors of one input above which `auto` calibrates with `minmax` only."""
MIN_FRAMES = 8
_MIN_SIDE_PX = 8
"""Smallest width and height of a frame whose neighbouring pixels can be compared."""
MAX_FRAMES = 2_000
"""Longer videos are sampled evenly, so that their end counts as much as their beginning."""
MIN_CORRELATION = 0.3
"""Correlation of neighbouring pixels. Photographs have more than 0.9, blurred or noisy; random numbers have none."""


def read_frames(path: Path) -> list[Pixels]:
    """Return the frames of a folder, an image or a video, cropped: uint8[H, W, 3] BGR, H and W at most 256.

    Raises UsageError if there are fewer than 8 different frames or if they look like random numbers, InputError if
    they cannot be read.
    """
    hint = f"give at least {MIN_FRAMES} different frames of the camera that the engine is for"
    source = open_source(str(path))
    try:
        frames = _sample_evenly(_crop_centre(frame.bgr) for frame in source)
    finally:
        source.close()
    if frames and min(min(frame.shape[:2]) for frame in frames) < _MIN_SIDE_PX:
        raise UsageError(f"a calibration frame is smaller than {_MIN_SIDE_PX} pixels", path, hint=hint)
    distinct = list({hashlib.sha256(frame.tobytes()).digest(): frame for frame in frames}.values())
    if len(distinct) < MIN_FRAMES:
        raise UsageError(
            f"too few calibration frames ({len(frames)} frames, {len(distinct)} of them different)", path, hint=hint
        )
    if np.median([_correlate_neighbours(frame) for frame in distinct]) < MIN_CORRELATION:
        raise UsageError("calibration frames look like random numbers", path, hint=hint)
    return distinct


def measure_traits(frame: Pixels) -> NDArray[np.float64]:
    """Return sharpness (log variance of the Laplacian), brightness (mean) and detail (log variance) of a frame.

    `frame`: uint8[H, W, 3] BGR. The result is float64[3].
    """
    gray = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.float64)
    return np.array([np.log1p(cv2.Laplacian(gray, cv2.CV_64F).var()), gray.mean(), np.log1p(gray.var())])


def select_frames(frames: list[Pixels], count: int) -> list[Pixels]:
    """Return the `count` frames that best cover the range of blur, brightness and detail, in their original order.

    Farthest-point sampling (Gonzalez 1985): the first frame is the one nearest to the average; each next one is the
    frame farthest from all that were selected before.
    """
    if len(frames) <= count:
        return frames
    points = np.stack([measure_traits(frame) for frame in frames])
    points = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-9)
    selected = [int(np.argmin(np.linalg.norm(points, axis=1)))]
    distance = np.linalg.norm(points - points[selected[0]], axis=1)
    while len(selected) < count:
        selected.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(points - points[selected[-1]], axis=1))
    return [frames[index] for index in sorted(selected)]


def compute_core_inputs(engine: onnx.ModelProto, core_input: str, frames: list[Pixels]) -> list[Nchw]:
    """Return frames as the core inside an engine receives them, after the engine's own padding and scaling.

    `core_input`: name of the tensor inside the engine that is read. `frames`: in the form that the engine takes, one by
    one. Each result is float32[1, C, H, W].
    """
    probe = onnx.ModelProto()
    probe.CopyFrom(engine)
    probe.graph.output.append(onnx.ValueInfoProto(name=core_input))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run([core_input], {probe.graph.input[0].name: frame[np.newaxis]})[0] for frame in frames]


def select_methods(core: onnx.ModelProto, nchw: Nchw) -> list[Method]:
    """Return the methods to try for a core: all, or `minmax` if the others would need too much memory.

    `nchw`: one calibration input. The histograms of `entropy` and `percentile` need all tensors of an input at once.
    """
    shapes = measure_shapes(core, list_float_tensors(core), nchw).values()
    tensor_bytes = 4 * sum(math.prod(shape) for shape in shapes)
    return list(get_args(Method)) if tensor_bytes <= HISTOGRAM_BYTES else ["minmax"]


def calibrate_ranges(core: onnx.ModelProto, inputs: list[Nchw], method: Method) -> Ranges:
    """Return the range of every tensor of a float core on these inputs.

    `entropy` and `percentile` are ONNX Runtime's calibrators.
    """
    if method == "minmax":
        return measure_extremes(core, inputs)
    if method == "entropy":
        inputs = _put_widest_first(core, inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "core.onnx"
        onnx.save(core, path)
        calibrator = create_calibrator(
            str(path),
            None,
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=_HISTOGRAM_METHODS[method],
            extra_options={"symmetric": False},
        )
        with redirect_stdout(io.StringIO()):  # the calibrator prints its progress
            for nchw in inputs:  # one by one: a calibrator keeps all inputs of one call in memory
                calibrator.collect_data(_SingleInput(core.graph.input[0].name, nchw))
            tensors = calibrator.compute_data()
    bounds = {name: data.range_value for name, data in tensors.items()}
    return {name: (float(np.min(low)), float(np.max(high))) for name, (low, high) in bounds.items()}


def _put_widest_first(core: onnx.ModelProto, inputs: list[Nchw]) -> list[Nchw]:
    """Return the inputs with the one first whose tensors come nearest to the largest values of all inputs.

    ONNX Runtime's histograms get the width of their bins from the first input and more bins for larger values, and
    `entropy` takes time with the square of their number: minutes instead of seconds if the first image is sharp and a
    later one has long blur.
    """
    peaks = np.array([[max(-low, high) for low, high in measure_extremes(core, [x]).values()] for x in inputs])
    growth = np.clip(peaks.max(axis=0) / np.maximum(peaks, 1e-9), 0, 1e3)  # times as many bins, for input and tensor
    widest = int(np.argmin((growth**2).sum(axis=1)))
    return [inputs[widest], *inputs[:widest], *inputs[widest + 1 :]]


class _SingleInput(CalibrationDataReader):  # type: ignore[misc]
    """A data reader that yields one input."""

    def __init__(self, name: str, nchw: Nchw) -> None:
        self._inputs: Iterator[dict[str, Any]] = iter([{name: nchw}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._inputs, None)


def _sample_evenly(frames: Iterable[Pixels]) -> list[Pixels]:
    """Return at most `MAX_FRAMES` evenly spaced frames of a stream whose length is not known in advance.

    Whenever more are kept, every second one is dropped and the distance between kept frames doubles.
    """
    kept: list[Pixels] = []
    step = 1
    for index, frame in enumerate(frames):
        if index % step == 0:
            kept.append(frame)
        if len(kept) > MAX_FRAMES:
            kept, step = kept[::2], 2 * step
    return kept


def _crop_centre(frame: Pixels) -> Pixels:
    top, left = (max(0, (side - CROP_PX) // 2) for side in frame.shape[:2])
    return np.ascontiguousarray(frame[top : top + CROP_PX, left : left + CROP_PX])


def _correlate_neighbours(frame: Pixels) -> float:
    """Return the correlation of each pixel with its right neighbour; 1 for a frame of one colour."""
    gray = frame.mean(axis=2)
    left, right = gray[:, :-1].ravel(), gray[:, 1:].ravel()
    if left.std() < 1e-6 or right.std() < 1e-6:
        return 1.0
    return float(np.corrcoef(left, right)[0, 1])
