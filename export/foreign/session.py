"""A foreign network as it was given, run on ONNX Runtime: images in its values and channels in, its outputs out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto

from export.foreign.options import MAX_MULTIPLE
from export.foreign.signature import ImageInput, Layout
from runtime.errors import EngineError

Nchw = NDArray[np.float32]
Values = NDArray[np.number[Any]]
"""An image or an output as the network lays it out, in its own type."""
_DTYPES: dict[int, type[np.number[Any]]] = {
    int(TensorProto.FLOAT): np.float32,
    int(TensorProto.FLOAT16): np.float16,
    int(TensorProto.DOUBLE): np.float64,
    int(TensorProto.UINT8): np.uint8,
}
_TO_NCHW = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 3, 1, 2)}
_FROM_NCHW = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}
TRIAL_SIZE = (192, 128)
"""Width and height of the image that shows layout and outputs; windows and halvings up to 64 divide it."""
_ODD_PARTS = ((3, 5), (5, 3), (7, 7))
"""Heights and widths, in multiples, of the images that show the multiple of the sizes."""


@dataclass(frozen=True)
class Form:
    """Layout and channels of the images that a network takes, and its outputs that are such images."""

    layout: Layout
    channels: int
    outputs: dict[str, Layout]
    """Outputs of the size and the channels of the image, by name."""


class ForeignSession:
    """A foreign ONNX file that takes float32[N, C, H, W], whatever its layout, type and batch are.

    Raises EngineError if ONNX Runtime cannot load it.
    """

    def __init__(self, path: Path, image: ImageInput) -> None:
        self.path, self.image = path, image
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has an exception class of its own for each status code
            what = f"ONNX Runtime cannot load it ({_shorten(error)})"
            raise EngineError(what, path, hint="export it again, or update onnxruntime") from error
        self.output_names = [output.name for output in self._session.get_outputs()]

    def run(self, images: Nchw, layout: Layout) -> dict[str, Values]:
        """Return all outputs by name, as the network lays them out; raises EngineError if the network fails."""
        values: Values = images.transpose(_FROM_NCHW[layout])
        if self.image.data_type == TensorProto.UINT8:
            values = np.rint(values).clip(0, 255)
        batch = np.ascontiguousarray(values, _DTYPES[self.image.data_type])
        step = self.image.batch or len(batch)
        parts = [self._run(_fill(batch[start : start + step], step)) for start in range(0, len(batch), step)]
        joined = (np.concatenate(values)[: len(batch)] for values in zip(*parts, strict=True))
        return dict(zip(self.output_names, joined, strict=True))

    def restore(self, images: Nchw, form: Form, output: str) -> Nchw:
        """Return one output as float32[N, C, H, W]."""
        return self.arrange(self.run(images, form.layout), form, output)

    def arrange(self, outputs: dict[str, Values], form: Form, output: str) -> Nchw:
        """Return one of the outputs as float32[N, C, H, W]."""
        order = _TO_NCHW[form.outputs[output]]
        result: Nchw = np.ascontiguousarray(outputs[output].transpose(order), np.float32)
        return result

    def _run(self, batch: Values) -> list[Values]:
        try:
            outputs = self._session.run(None, {self.image.name: batch})
        except Exception as error:
            shape = "x".join(map(str, batch.shape))
            what = f"it fails on an image of {shape} ({_shorten(error)})"
            raise EngineError(what, self.path, hint="export it again for images of any size") from error
        return [np.asarray(output) for output in outputs]

    def find_form(self) -> Form:
        """Return layout, channels and outputs, found by running; raises EngineError if no output fits the image."""
        failure: EngineError | None = None
        for layout in self.image.layouts:
            for channels in self.image.channels:
                width, height = self.image.size or TRIAL_SIZE
                image = _make_image(height, width, channels)
                try:
                    outputs = self.run(image, layout)
                except EngineError as error:
                    failure = failure or error
                    continue
                return Form(layout, channels, self._match_outputs(outputs, image))
        assert failure
        raise failure

    def _match_outputs(self, outputs: dict[str, Values], image: Nchw) -> dict[str, Layout]:
        """Return the layout of each output with the size and the channels of the image; raise EngineError for none."""
        shapes: dict[Layout, tuple[int, ...]] = {"NCHW": image.shape, "NHWC": image.transpose(0, 2, 3, 1).shape}
        matches: dict[str, Layout] = {}
        for name, values in outputs.items():
            for layout, shape in shapes.items():
                if values.shape == shape and values.dtype.type in _DTYPES.values():
                    matches.setdefault(name, layout)
        if matches:
            return matches
        _, channels, height, width = image.shape
        listed = "; ".join(f"{name}: {list(values.shape)}" for name, values in outputs.items())
        what = f"its output has another size than its image ({listed} for {channels} channels of {width}x{height})"
        raise EngineError(what, self.path, hint="give a network whose output has the size of its input")

    def find_multiple(self, form: Form, stated: int | None) -> int:
        """Return the smallest power of two whose multiples the network takes as sizes; `stated` is tried alone.

        Raises EngineError if there is none.
        """
        if self.image.size:
            return 1
        multiples = [stated] if stated else [2**power for power in range(MAX_MULTIPLE.bit_length())]
        for multiple in multiples:
            if all(self._takes(size, form) for size in _list_sizes(multiple)):
                return multiple
        what = f"it takes no images whose sides are multiples of {multiples[-1]} pixels"
        raise EngineError(what, self.path, hint="give --multiple-of, or export it again for images of any size")

    def _takes(self, size: tuple[int, int], form: Form) -> bool:
        image = _make_image(*size, form.channels)
        try:
            outputs = self._match_outputs(self.run(image, form.layout), image)
        except EngineError:
            return False
        return outputs == form.outputs


def _list_sizes(multiple: int) -> Iterator[tuple[int, int]]:
    """Yield heights and widths of at least 24 pixels that are multiples of a number, and of nothing larger."""
    factor = -(-24 // (3 * multiple)) | 1  # odd
    for rows, columns in _ODD_PARTS:
        yield multiple * factor * rows, multiple * factor * columns


def _make_image(height: int, width: int, channels: int) -> Nchw:
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    plane = 0.5 + 0.25 * np.sin(rows / 9) + 0.25 * np.cos(columns / 7)
    return np.repeat(plane[None, None], channels, axis=1).astype(np.float32)


def _fill(batch: Values, count: int) -> Values:
    """Return a batch of `count` images; the last one is repeated."""
    return batch if len(batch) == count else np.concatenate([batch, *[batch[-1:]] * (count - len(batch))])


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
