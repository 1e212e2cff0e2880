"""Pixel ranges of foreign ONNX files: found by experiment for input and output, or stated as mean and std."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.__main__ import main
from runtime.engines import open_engine
from runtime.metrics import psnr_db
from tests.export.foreign_models import Kind, make_model, write_pairs

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
KINDS = {
    "0..1": Kind(is_strict=True),
    "0..255": Kind(is_strict=True, range="0..255"),
    "-1..1": Kind(is_strict=True, range="-1..1"),
    "imagenet": Kind(is_strict=True, mean=MEAN, std=STD),
    "imagenet to 0..1": Kind(is_strict=True, mean=MEAN, std=STD, returns_normalised=False),
}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs")


def export(folder: Path, kind: Kind, pairs: Path, *more: str) -> int:
    opset = Kind(**{**kind.__dict__, "opset": 17})  # in which reductions have their axes as an attribute
    onnx.save(make_model(opset), folder / "model.onnx")
    arguments = [str(folder / "model.onnx"), "--out", str(folder / "out"), "--pairs", str(pairs)]
    return main([*arguments, "--precision", "fp32", "--pixels", "bgr", *more])


def require_gain(folder: Path, pairs: Path) -> None:
    """Require that the engine restores the pairs."""
    engine = open_engine(folder / "out" / "deblur_fp32.onnx", provider="cpu")
    for index in range(4):
        blurred, sharp = (cv2.imread(str(pairs / kind / f"{index}.png")) for kind in ("blur", "sharp"))
        assert psnr_db(engine(blurred), sharp) > psnr_db(blurred, sharp) + 0.1
    engine.close()


@pytest.mark.parametrize("name", KINDS)
def test_the_range_is_found(name: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export(tmp_path, KINDS[name], pairs) == 0
    assert f"view    {name} rgb " in capsys.readouterr().err
    require_gain(tmp_path, pairs)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_mean_and_std_are_stated_as_red_green_blue(
    order: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mean, std = (0.2, 0.5, 0.8), (0.5, 1.0, 2.0)
    in_order = slice(None, None, 1 if order == "rgb" else -1)
    kind = Kind(is_strict=True, order=order, mean=mean[in_order], std=std[in_order])
    assert export(tmp_path, kind, pairs) == 4  # no known range restores anything
    assert "--range and --channels as its authors say" in capsys.readouterr().err
    assert export(tmp_path, kind, pairs, "--mean", "0.2,0.5,0.8", "--std", "0.5,1,2") == 0
    assert f"view    mean 0.2,0.5,0.8 std 0.5,1,2 {order} " in capsys.readouterr().err
    require_gain(tmp_path, pairs)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mean", "123.7,116.3,103.5"), "divide values for 0..255 by 255"),
        (("--std", "0.5,0.5"), "expected R,G,B"),
        (("--std", "nan"), "expected R,G,B"),
        (("--mean", "0.5", "--range", "0..1"), "say the same"),
        (("--mean", "0.5,0.4,0.3", "--channels", "gray"), "a gray image has one mean"),
    ],
)
def test_impossible_statements_are_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(make_model(Kind()), model)
    try:
        code = main([str(model), "--out", str(tmp_path / "out"), *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    assert code == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_network_against_noise_is_recognised(tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It makes the blurred images worse in every range, and restores only in its own."""
    weights = np.zeros((3, 3, 3, 3), np.float32)
    for channel in range(3):
        weights[channel, channel] = np.outer((1, 2, 1), (1, 2, 1)) / 16
    bias = np.array([0.0, 0.0, 0.0], np.float32)
    nodes = [
        helper.make_node("Pad", ["noisy", "pads"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "weights", "bias"], ["smooth"], kernel_shape=[3, 3]),
        helper.make_node("Clip", ["smooth", "low", "high"], ["clean"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"),
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(bias, "bias"),
        numpy_helper.from_array(np.float32(0), "low"),
        numpy_helper.from_array(np.float32(1), "high"),
    ]
    shape = (1, 3, "h", "w")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("noisy", "clean")]
    graph = helper.make_graph(nodes, "smooth", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    arguments = [str(tmp_path / "model.onnx"), "--out", str(tmp_path / "out"), "--pairs", str(pairs)]
    code = main([*arguments, "--precision", "fp32", "--pixels", "bgr", "--channels", "rgb"])
    said = capsys.readouterr().err
    assert code == 0, said
    found = r"view    \S+ (to \S+ )?rgb \d+\.\d\d dB in the middle of sharp images with noise of 20 codes"
    assert re.search(found, said)
