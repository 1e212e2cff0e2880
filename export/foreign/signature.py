"""The image input of a foreign ONNX file: layout, type, batch and size, and what makes it more than an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx
from onnx import TensorProto

from runtime.engines.tile_layout import MIN_TILE_PX
from runtime.errors import EngineError

Layout = Literal["NCHW", "NHWC"]
CHANNEL_AXES: dict[Layout, int] = {"NCHW": 1, "NHWC": 3}
_TYPES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.UINT8)
_MIN_SIDE_PX = 32
"""A static dimension below this is a number of channels, not a side of an image."""
_FRAME_BY_FRAME = "this toolkit restores one frame at a time: export a network that takes one"


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """The input of a network that takes one image at a time."""

    name: str
    data_type: int
    """One of FLOAT, FLOAT16, DOUBLE and UINT8 of `onnx.TensorProto`."""
    layouts: tuple[Layout, ...]
    """Possible layouts, by the channels that the file states; which one it is shows when it runs."""
    channels: tuple[int, ...]
    """Possible numbers of channels: 1 for gray, 3 for colour."""
    batch: int | None
    """Number of images in a call; None for any."""
    size: tuple[int, int] | None
    """The only width and height in pixels; None for any."""


def read_input(model: onnx.ModelProto, path: Path) -> ImageInput:
    """Return the image input of a network; raises EngineError for a network that needs more than one image."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if not inputs:
        raise EngineError("it has no input", path, hint="export it again")
    if len(inputs) > 1:
        raise _describe_further_inputs(model, inputs, path)
    value = inputs[0]
    dims, data_type = _list_dims(value), value.type.tensor_type.elem_type
    if data_type not in _TYPES:
        name = TensorProto.DataType.Name(data_type)
        raise EngineError(f"its input {value.name} is {name}, no image", path, hint="give a network that takes images")
    if len(dims) == 5:
        count = dims[1] if isinstance(dims[1], int) else "several"
        raise EngineError(f"it takes {count} frames in a call ({describe(value)})", path, hint=_FRAME_BY_FRAME)
    if len(dims) != 4:
        hint = "export it again with an input of [batch, channels, height, width]"
        raise EngineError(f"its input has {len(dims)} dimensions in place of 4 ({describe(value)})", path, hint=hint)
    layouts, channels = _find_layouts(dims)
    if not layouts:
        raise _describe_channels(value, dims, path)
    return ImageInput(
        name=value.name,
        data_type=data_type,
        layouts=layouts,
        channels=channels,
        batch=dims[0] if isinstance(dims[0], int) else None,
        size=_find_size(value, dims, layouts, path),
    )


def describe(value: onnx.ValueInfoProto) -> str:
    """Return an input or output as text, such as `image: FLOAT[1, 3, height, width]`."""
    dims = ", ".join(str(dim) for dim in _list_dims(value))
    return f"{value.name}: {TensorProto.DataType.Name(value.type.tensor_type.elem_type)}[{dims}]"


def _list_dims(value: onnx.ValueInfoProto) -> list[int | str]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims]


def _find_layouts(dims: list[int | str]) -> tuple[tuple[Layout, ...], tuple[int, ...]]:
    """Return the layouts and the numbers of channels that dimensions allow; empty if there are none."""
    stated = [layout for layout, axis in CHANNEL_AXES.items() if dims[axis] in {1, 3}]
    if len(stated) == 1:
        channels = dims[CHANNEL_AXES[stated[0]]]
        assert isinstance(channels, int)
        return (stated[0],), (channels,)
    other = [dim for dim in (dims[1], dims[3]) if isinstance(dim, int)]
    if not stated and any(dim < _MIN_SIDE_PX for dim in other):
        return (), ()
    possible = tuple(layout for layout, axis in CHANNEL_AXES.items() if isinstance(dims[axis], str) or layout in stated)
    return possible, (3, 1)


def _find_size(
    value: onnx.ValueInfoProto, dims: list[int | str], layouts: tuple[Layout, ...], path: Path
) -> tuple[int, int] | None:
    height, width = dims[1:3] if layouts == ("NHWC",) else dims[2:4]
    if isinstance(height, int) and isinstance(width, int):
        if min(height, width) < MIN_TILE_PX:
            what = f"it takes images of {width}x{height} alone, and tiles have at least {MIN_TILE_PX} pixels"
            raise EngineError(what, path, hint="export it again with dynamic height and width")
        return width, height
    if isinstance(height, int) or isinstance(width, int):
        hint = "export it again with both dynamic, or both static"
        raise EngineError(f"one side of its image is static and the other is not ({describe(value)})", path, hint=hint)
    return None


def _describe_channels(value: onnx.ValueInfoProto, dims: list[int | str], path: Path) -> EngineError:
    channels = next(
        (dim for dim in (dims[1], dims[3]) if isinstance(dim, int) and dim % 3 == 0 and dim < _MIN_SIDE_PX), 0
    )
    if isinstance(channels, int) and channels:
        frames = f"{channels // 3} frames stacked as {channels} channels"
        return EngineError(f"it takes {frames} ({describe(value)})", path, hint=_FRAME_BY_FRAME)
    hint = "give a network for images of 1 or 3 channels"
    return EngineError(f"its input has neither 1 nor 3 channels ({describe(value)})", path, hint=hint)


def _describe_further_inputs(model: onnx.ModelProto, inputs: list[onnx.ValueInfoProto], path: Path) -> EngineError:
    """Return the error for a network of several inputs: states, several frames, or settings."""
    listed = "; ".join(describe(value) for value in inputs)
    images = [value for value in inputs if _find_layouts([*_list_dims(value), *"????"][:4])[0] and _is_image(value)]
    others = [value for value in inputs if value not in images]
    outputs = {tuple(_list_dims(value)): value.name for value in list(model.graph.output)[1:]}
    states = [value for value in (others or inputs[1:]) if tuple(_list_dims(value)) in outputs]
    if states:
        name = states[0].name
        fed = f"{outputs[tuple(_list_dims(states[0]))]} of a frame to {name} of the next"
        return EngineError(f"it needs a state, {fed} ({listed})", path, hint=_FRAME_BY_FRAME)
    if len(images) > 1:
        return EngineError(f"it needs {len(images)} frames ({listed})", path, hint=_FRAME_BY_FRAME)
    hint = f"export it again with {' and '.join(value.name for value in others)} as a constant"
    return EngineError(f"it needs more than an image ({listed})", path, hint=hint)


def _is_image(value: onnx.ValueInfoProto) -> bool:
    return len(_list_dims(value)) == 4
