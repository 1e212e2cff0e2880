"""ONNX files that are refused before they run. Tests of engines that run are in test_engine_conformance.py."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from runtime.engines import open_backend
from runtime.errors import EngineError
from runtime.spec import METADATA_KEY
from tests.conftest import write_engine


def test_engine_without_metadata_runs(invert: Path) -> None:
    engine = open_backend(invert)
    frame = np.arange(36, dtype=np.uint8).reshape(1, 3, 4, 3)
    assert np.array_equal(engine.infer(frame), 255 - frame)
    assert engine.spec.name == "invert"


def damaged(folder: Path, invert: Path, kind: str) -> Path:
    path = folder / f"{kind}.onnx"
    whole = invert.read_bytes()
    if kind == "empty":
        path.touch()
    elif kind == "directory":
        path.mkdir()
    elif kind == "junk":
        path.write_bytes(b"not an engine" * 99)
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "metadata":
        model = onnx.load(invert)
        helper.set_model_props(model, {METADATA_KEY: "{"})
        onnx.save(model, path)
    elif kind == "not UTF-8":
        model = onnx.load(invert)
        helper.set_model_props(model, {"author": "abcdef"})
        path.write_bytes(model.SerializeToString().replace(b"abcdef", b"\x80bcdef"))
    elif kind == "plan":
        path = path.with_suffix(".plan")
        path.write_bytes(whole)
    return path


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "directory", "junk", "truncated", "metadata", "not UTF-8", "plan"]
)
def test_damaged_engines_are_refused_in_one_line(tmp_path: Path, invert: Path, kind: str) -> None:
    path = damaged(tmp_path, invert, kind)
    with pytest.raises(EngineError) as refusal:
        open_backend(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_engine_whose_name_is_not_utf8_is_refused(tmp_path: Path, invert: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff.onnx")
    path.write_bytes(invert.read_bytes())
    for provider in ("cpu", "openvino"):
        with pytest.raises(EngineError, match="name of the engine is not UTF-8"):
            open_backend(path, provider=provider)


def test_unavailable_provider_is_refused_and_not_replaced(invert: Path) -> None:
    with pytest.raises(EngineError, match="provider tensorrt is not in this build"):
        open_backend(invert, provider="tensorrt")


def test_weights_outside_the_folder_of_the_engine_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    outside = helper.make_tensor("c", TensorProto.UINT8, [1], bytes(1), raw=True)
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret.bin"), ("offset", "0"), ("length", "1")):
        outside.external_data.add(key=key, value=value)
    model = onnx.load(write_engine(tmp_path / "a.onnx", nodes=[helper.make_node("Add", ["x0", "c"], ["y"])]))
    model.graph.initializer.append(outside)
    path = tmp_path / "inner" / "outside.onnx"
    path.write_bytes(model.SerializeToString())
    for provider in ("cpu", "openvino"):
        with pytest.raises(EngineError, match="not an engine that ONNX Runtime can load"):
            open_backend(path, provider=provider)


def test_flipped_bits_are_refused_or_harmless(tmp_path: Path, invert: Path) -> None:
    """An ONNX file has no checksum: a flipped bit gives an EngineError or an engine that runs, and never a crash."""
    whole = bytearray(invert.read_bytes())
    path = tmp_path / "flipped.onnx"
    refused = 0
    for position in range(0, len(whole), 3):
        whole[position] ^= 0x10
        path.write_bytes(whole)
        whole[position] ^= 0x10
        try:
            engine = open_backend(path, provider="cpu")
            assert engine.infer(np.zeros((1, 4, 5, 3), np.uint8)).dtype == np.uint8
        except EngineError:
            refused += 1
    assert refused > 10
