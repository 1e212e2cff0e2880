"""The spec of an engine in an ONNX file, read from its metadata and its inputs and outputs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnxruntime as ort

from runtime.commands import EXPORTER
from runtime.errors import EngineError
from runtime.spec import FLOAT_NCHW, METADATA_KEY, EngineSpec

_CONTRACT = "uint8[N, H, W, 3] or uint8[N, 3 H / 2, W]"


def read_session_spec(session: ort.InferenceSession, path: Path) -> EngineSpec:
    """Return the spec from the metadata of a model; a fixed height or width in the graph replaces its range."""
    try:
        return _read_spec(session, path)
    except UnicodeDecodeError as error:  # ONNX Runtime loads such files, and ONNX forbids them
        raise EngineError("names or metadata of the file are not UTF-8", path, hint="export it again") from error


def _read_spec(session: ort.InferenceSession, path: Path) -> EngineSpec:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    is_pair = len(inputs) == len(outputs) == 1 and all(_is_frames(node) for node in inputs + outputs)
    if not is_pair or len(inputs[0].shape) != len(outputs[0].shape) or _differ_in_size(inputs[0], outputs[0]):
        signature = "; ".join(f"{node.name}: {node.type} {node.shape}" for node in inputs + outputs)
        what = f"expected one input and one output of {_CONTRACT}, got {signature}"
        other = path.with_name(f"{path.stem.removesuffix(f'_{FLOAT_NCHW}')}.onnx")
        if other != path and other.is_file():
            raise EngineError(f"{what}, which is for other programs", path, hint=f"give {other.name}")
        raise EngineError(what, path, hint=f"export it with python -m {EXPORTER}")
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    try:
        spec = EngineSpec.from_json(text) if text else EngineSpec(name=path.stem)
    except ValueError as error:
        raise EngineError(f"metadata {METADATA_KEY} is damaged ({error})", path, hint="export it again") from error
    height, width = inputs[0].shape[1:3]
    spec = dataclasses.replace(spec, pixels="bgr" if len(inputs[0].shape) == 4 else "yuv420")
    if isinstance(height, int):
        height = height if spec.pixels == "bgr" else height * 2 // 3
        spec = dataclasses.replace(spec, height=(height, height))
    if isinstance(width, int):
        spec = dataclasses.replace(spec, width=(width, width))
    return spec


def _differ_in_size(one: ort.NodeArg, other: ort.NodeArg) -> bool:
    """Return whether two tensors state different sizes; a name in place of a size may be any."""
    sizes = zip(one.shape, other.shape, strict=True)
    return any(isinstance(size, int) and isinstance(its, int) and size != its for size, its in sizes)


def _is_frames(node: ort.NodeArg) -> bool:
    """Return whether an input or output is uint8[N, H, W, 3] or uint8[N, 3 H / 2, W], with W even."""
    if node.type != "tensor(uint8)" or len(node.shape) not in {3, 4}:
        return False
    if len(node.shape) == 4:
        return bool(node.shape[3] == 3)
    _, rows, width = (side if isinstance(side, int) else 0 for side in node.shape)
    return rows % 3 == 0 and width % 2 == 0
