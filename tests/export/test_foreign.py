"""Foreign ONNX files of many kinds are exported right, or refused in one line with exit code 4 and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.__main__ import main
from export.foreign import view_search
from runtime.engines import open_engine
from runtime.metrics import psnr_db
from tests.export.foreign_models import Kind, make_model, write_pairs

KINDS = {
    "NCHW RGB 0..1": Kind(),
    "NHWC, opset 13": Kind(layout="NHWC", opset=13),
    "uint8 NHWC BGR": Kind(layout="NHWC", order="bgr", range="0..255", data_type=TensorProto.UINT8),
    "BGR 0..255": Kind(order="bgr", range="0..255"),
    "-1..1, any batch": Kind(range="-1..1", batch="n"),
    "static": Kind(size=(80, 64)),
    "residual": Kind(returns="residual"),
    "two outputs": Kind(outputs=2),
    "gray": Kind(order="gray"),
    "opset 11": Kind(opset=11),
    "opset 23": Kind(opset=23),
    "half": Kind(data_type=TensorProto.FLOAT16),
    "multiple of 4": Kind(multiple=4),
}


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs")


def write(path: Path, kind: Kind = KINDS["NCHW RGB 0..1"]) -> Path:
    onnx.save(make_model(kind), path)
    return path


def run(model: Path, out: Path, pairs: Path, *more: str) -> int:
    return main([str(model), "--out", str(out), "--pairs", str(pairs), *more])


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_becomes_an_engine_that_restores(
    name: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is stated: range, channels, residual, layout and sizes are found out."""
    kind = KINDS[name]
    model = write(tmp_path / "model.onnx", kind)
    assert run(model, tmp_path / "out", pairs, "--precision", "fp32", "--pixels", "bgr") == 0
    said = capsys.readouterr()
    # Without biases, a network computes the same in several ranges: which is named depends on rounding.
    way = rf"\S+ (to \S+ )?{kind.order}" + (", residual added" if kind.returns == "residual" else "")
    assert re.search(f"view    {way} ", said.err)
    assert re.search(f"How the network is run: {way} ", said.out)
    engine = open_engine(tmp_path / "out" / "deblur_fp32.onnx", provider="cpu")
    expected = open_engine(_write_plain(tmp_path, gray=kind.order == "gray"), provider="cpu")
    for index in range(4):
        blurred, sharp = (cv2.imread(str(pairs / folder / f"{index}.png")) for folder in ("blur", "sharp"))
        restored = engine(blurred)
        assert psnr_db(restored, sharp) > psnr_db(blurred, sharp) + 0.1
        assert psnr_db(restored, expected(blurred)) > 48  # every kind is the same network
        assert engine(blurred[:31, :53]).shape == (31, 53, 3)


def _write_plain(folder: Path, *, gray: bool) -> Path:
    """Write an engine of the network of all kinds, made by hand: float arithmetic between bytes."""
    model = make_model(Kind(order="gray" if gray else "bgr", range="0..255", batch="n"))
    luma = numpy_helper.from_array(np.float32([0.114, 0.587, 0.299]).reshape(1, 3, 1, 1), "luma")
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "luma"], ["image"])
        if gray
        else helper.make_node("Identity", ["nchw"], ["image"]),
    ]
    after = [
        helper.make_node("Sub", ["restored", "image"], ["change"]),
        helper.make_node("Add", ["nchw", "change"], ["sum"]),
        helper.make_node("Clip", ["sum", "low", "high"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["round"]),
        helper.make_node("Transpose", ["round"], ["nhwc"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["nhwc"], ["result"], to=TensorProto.UINT8),
    ]
    shape = ("n", "h", "w", 3)
    values = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("frames", "result")]
    limits = [numpy_helper.from_array(np.float32(value), name) for name, value in (("low", 0), ("high", 255))]
    constants = [*model.graph.initializer, luma, *limits]
    graph = helper.make_graph([*nodes, *model.graph.node, *after], "plain", values[:1], values[1:], constants)
    path = folder / "plain_engine.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_the_whole_chain_runs_on_a_foreign_file(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All precisions, both pixel interfaces and the float interface; with external data; again without work."""
    model = make_model(Kind(size=None, batch="n"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=100)
    arguments = ("--calib-method", "minmax", "--interface", "float_nchw", "--range", "0..1", "--channels", "rgb")
    out = tmp_path / "out"
    assert run(path, out, pairs, *arguments) == 0
    for form in ("", "_yuv420"):
        for precision in ("fp32", "fp16", "int8", "int8_cpu"):
            engine = open_engine(out / f"deblur_{precision}{form}.onnx", provider="cpu")
            assert engine.spec.generator.startswith("model.onnx(range=0..1, channels=rgb")
            assert engine.spec.loss_db <= engine.spec.budget_db
            engine.close()
    assert (out / "deblur_int8_cpu_float_nchw.onnx").exists()
    capsys.readouterr()
    assert run(path, out, pairs, *arguments) == 0
    assert "nothing has changed" in capsys.readouterr().out
    (tmp_path / "weights.bin").write_bytes(bytes(8 + (tmp_path / "weights.bin").stat().st_size))
    assert run(path, out, pairs, *arguments) == 4  # other weights: it restores nothing any more
    (tmp_path / "weights.bin").unlink()
    assert run(path, tmp_path / "other", pairs, *arguments) == 4
    assert "external data cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_static_network_has_engines_of_its_size(tmp_path: Path, pairs: Path) -> None:
    path = write(tmp_path / "model.onnx", KINDS["static"])
    assert (
        run(
            path,
            tmp_path / "out",
            pairs,
            "--precision",
            "fp32,int8_cpu",
            "--calib-method",
            "minmax",
            "--interface",
            "float_nchw",
        )
        == 0
    )
    names = sorted(file.name for file in (tmp_path / "out").glob("*.onnx"))
    assert not any("yuv420" in name for name in names)
    session = onnxruntime.InferenceSession(tmp_path / "out" / "deblur_int8_cpu.onnx")
    assert session.get_inputs()[0].shape == ["batch", 64, 80, 3]
    float_session = onnxruntime.InferenceSession(tmp_path / "out" / "deblur_fp32_float_nchw.onnx")
    assert float_session.get_inputs()[0].shape == [1, 3, 64, 80]
    assert run(path, tmp_path / "out", pairs, "--pixels", "yuv420", "--precision", "fp32") == 2


def _add_state(model: onnx.ModelProto) -> None:
    state = [helper.make_tensor_value_info(f"state_{end}", TensorProto.FLOAT, [1, 8]) for end in ("in", "out")]
    model.graph.input.append(state[0])
    model.graph.output.append(state[1])
    model.graph.node.append(helper.make_node("Identity", ["state_in"], ["state_out"]))


def _add_input(model: onnx.ModelProto, name: str, *shape: int | str) -> None:
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    model.graph.node.append(helper.make_node("Identity", [name], ["unused"]))


def _set_shape(model: onnx.ModelProto, *shape: int | str, kind: int = TensorProto.FLOAT) -> None:
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", kind, shape))


def _make_custom(model: onnx.ModelProto) -> None:
    model.graph.node[1].domain, model.graph.node[1].op_type = "mmcv", "MMCVModulatedDeformConv2d"
    model.opset_import.append(helper.make_opsetid("mmcv", 1))


def _enlarge(model: onnx.ModelProto) -> None:
    graph = model.graph
    result = graph.node.pop().input[0]
    graph.initializer.append(numpy_helper.from_array(np.ones((12, 3, 1, 1), np.float32), "wide"))
    graph.node.append(helper.make_node("Conv", [result, "wide"], ["twelve"]))
    graph.node.append(helper.make_node("DepthToSpace", ["twelve"], ["restored"], blocksize=2))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("restored", TensorProto.FLOAT, [1, 3, "hh", "ww"]))


def _set_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9


def _add_condition(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", ["image"], ["b"])], "b", [], [value])
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], bool), "condition"))
    model.graph.node.append(helper.make_node("If", ["condition"], ["chosen"], then_branch=branch, else_branch=branch))


REFUSED = {
    "state": (_add_state, r"it needs a state, state_out of a frame to state_in of the next"),
    "two frames": (
        lambda model: _add_input(model, "previous", 1, 3, "h", "w"),
        r"it needs 2 frames \(image: FLOAT\[1, 3, h, w\]; previous: FLOAT\[1, 3, h, w\]\)",
    ),
    "stacked": (lambda model: _set_shape(model, 1, 9, "h", "w"), r"it takes 3 frames stacked as 9 channels"),
    "sequence": (
        lambda model: _set_shape(model, 1, 5, 3, "h", "w"),
        r"it takes 5 frames in a call \(image: FLOAT\[1, 5, 3, h, w\]\)",
    ),
    "channels": (lambda model: _set_shape(model, 1, 4, "h", "w"), r"its input has neither 1 nor 3 channels"),
    "setting": (lambda model: _add_input(model, "sigma", 1), r"it needs more than an image .*sigma: FLOAT\[1\]"),
    "custom": (_make_custom, r"it needs operators that are not ONNX's \(mmcv.MMCVModulatedDeformConv2d\)"),
    "size": (
        _enlarge,
        r"its output has another size than its image \(restored: \[1, 3, 256, 384\] for 3 channels of 192x128\)",
    ),
    "opset": (_set_opset, r"its ONNX opset is 9, and 11 to 23 are read"),
    "type": (
        lambda model: _set_shape(model, 1, 3, "h", "w", kind=TensorProto.INT64),
        r"its input image is INT64, no image",
    ),
    "half static": (
        lambda model: _set_shape(model, 1, 3, 64, "w"),
        r"one side of its image is static and the other is not",
    ),
    "small": (
        lambda model: _set_shape(model, 1, 3, 8, 8),
        r"it takes images of 8x8 alone, and tiles have at least 64 pixels",
    ),
    "control flow": (_add_condition, r"it decides while it runs \(If\)"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_restored_frame_by_frame_is_refused(
    name: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(Kind())
    edit, pattern = REFUSED[name]
    edit(model)
    onnx.save(model, tmp_path / "model.onnx")
    _require_refusal(tmp_path, pairs, capsys, pattern)


def test_another_brightness_is_no_restoration(tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The blurred images are brighter by a code, and the network makes images darker by one in one of the ranges."""
    for file in (pairs / "blur").iterdir():
        cv2.imwrite(str(file), np.clip(cv2.imread(str(pairs / "sharp" / file.name)).astype(int) + 1, 0, 255))
    image, restored = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, "h", "w"]) for name in ("image", "restored")
    )
    one = numpy_helper.from_array(np.float32(-1.0), "one")
    node = helper.make_node("Add", ["image", "one"], ["restored"])
    graph = helper.make_graph([node], "darker", [image], [restored], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    _require_refusal(tmp_path, pairs, capsys, r"no way restores the pairs")


def _require_refusal(
    folder: Path, pairs: Path, capsys: pytest.CaptureFixture[str], pattern: str, *more: str, hint: str = "."
) -> None:
    assert run(folder / "model.onnx", folder / "out", pairs, *more) == 4
    *trial, line = capsys.readouterr().err.splitlines()
    assert all(text.startswith("trial ") for text in trial)
    assert len(trial) <= 1
    assert re.match(f"error: {pattern}.*: .*model.onnx; {hint}", line), line
    assert not (folder / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no model", bytes(100)], ids=["empty", "text", "zeros"])
def test_a_damaged_file_is_refused(
    content: bytes, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    _require_refusal(tmp_path, pairs, capsys, "not an ONNX file")
    (tmp_path / "model.onnx").unlink()
    _require_refusal(tmp_path, pairs, capsys, "no such ONNX file")


def test_a_wrong_statement_is_refused_with_the_figures(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "model.onnx")
    figures = r".* restores the pairs to \d+\.\d\d dB, 0..1 rgb 32.0\d dB"
    hint = r"give --range 0..1 --channels rgb, or add --force"
    _require_refusal(tmp_path, pairs, capsys, figures, "--range", "0..255", hint=hint)
    _require_refusal(tmp_path, pairs, capsys, figures, "--range", "-1..1")
    _require_refusal(tmp_path, pairs, capsys, f"0..1 bgr{figures}", "--channels", "bgr")
    with monkeypatch.context() as patch:
        patch.setattr(view_search, "_run_trials", lambda *_: pytest.fail("the file states its channels"))
        hint = "give --channels rgb or --channels bgr"
        _require_refusal(tmp_path, pairs, capsys, r"it takes 3 channels, not gray", "--channels", "gray", hint=hint)
    forced = ("--channels", "bgr", "--force", "--precision", "fp32", "--pixels", "bgr")
    assert run(tmp_path / "model.onnx", tmp_path / "out", pairs, *forced) == 0


def test_what_cannot_be_told_apart_is_asked_for(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On pairs of gray images, the order of the channels makes no difference that counts."""
    write(tmp_path / "model.onnx")
    monkeypatch.setattr(view_search, "_CHOICE", (5.0, 2.0))
    monkeypatch.setattr(view_search.Trial.is_better_than, "__defaults__", ((5.0, 2.0),))
    alike = r"these restore the pairs equally well: 0..1 rgb 32.0\d dB, .*"
    hint = r".* \([1-9][\d.]* codes RMS between them\)"
    _require_refusal(tmp_path, pairs, capsys, alike, "--range", "0..1", hint=hint)
    hint = "give --range 0..1, and --channels rgb or bgr, which differ too little here to say which"
    _require_refusal(tmp_path, pairs, capsys, ".* restores the pairs to", "--range", "0..255", hint=hint)
    monkeypatch.undo()
    for kind in ("blur", "sharp"):
        for file in (pairs / kind).iterdir():
            cv2.imwrite(str(file), cv2.imread(str(pairs / "sharp" / file.name)))
    _require_refusal(tmp_path, pairs, capsys, r"no way restores the pairs \(best .*; blurred 99.00 dB\)")


def test_the_stated_multiple_is_tried(tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "model.onnx", KINDS["multiple of 4"])
    refusal = r"it takes no images whose sides are multiples of 2 pixels"
    _require_refusal(tmp_path, pairs, capsys, refusal, "--multiple-of", "2")
    arguments = ("--multiple-of", "8", "--precision", "fp32", "--pixels", "bgr")
    assert run(tmp_path / "model.onnx", tmp_path / "out", pairs, *arguments) == 0
    assert "sizes multiples of 8" in capsys.readouterr().err


def test_statements_are_for_onnx_files_only(tmp_path: Path, pairs: Path) -> None:
    assert run(tmp_path / "run", tmp_path / "out", pairs, "--range", "-1..1") == 2
