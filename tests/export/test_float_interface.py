"""The export for FFmpeg, vs-mlrt and other hosts: float32[1, 3, H, W] RGB in 0..1, of any size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export.__main__ import main
from export.float_export import make_float_export
from export.graph.channel_order import to_bgr_order
from export.graph.float_interface import add_float_interface
from export.graph.fuse import fuse_convolutions
from export.torch_to_onnx import export_to_onnx, get_view
from export.verify import create_restorer, read_pairs
from runtime.engines import open_engine
from runtime.errors import EngineError
from tests.conftest import make_image
from tests.export.conftest import write_run
from tests.export.test_export import Plain, Signed, create_edge
from train.models import Generator, restore_frames


def to_rgb(frame: np.ndarray) -> np.ndarray:
    """Return uint8[H, W, 3] BGR as float32[1, 3, H, W] RGB in 0..1."""
    return np.ascontiguousarray(frame[None, ..., ::-1].transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def to_bgr(output: np.ndarray) -> np.ndarray:
    return np.rint(output[0] * 255).astype(int).transpose(1, 2, 0)[..., ::-1]


def export_core(generator: Generator) -> onnx.ModelProto:
    core = fuse_convolutions(export_to_onnx(generator))
    return to_bgr_order(core) if generator.channel_order == "RGB" else core


class Grouped(Signed):
    """Network whose channels cannot be reordered in its weights."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(1) + 0.2 * self.mix(x)


@pytest.mark.parametrize("create", [create_edge, Signed, Plain, Grouped], ids=["edge", "signed", "255", "grouped"])
def test_export_agrees_with_the_network(create: type[Generator]) -> None:
    torch.manual_seed(0)
    generator = create().eval()
    model = add_float_interface(export_core(generator), get_view(generator), name="float")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for height, width in ((45, 61), (1, 1), (32, 48)):
        frame = make_image(width, height, seed=height)
        (output,) = session.run(None, {"blurred": to_rgb(frame)})
        expected = restore_frames(generator, torch.from_numpy(frame[None])).numpy()[0].astype(int)
        assert np.abs(to_bgr(output) - expected).max() <= 1
        assert output.min() >= 0
        assert output.max() <= 1
    assert np.abs(expected - frame).mean() > 1  # the network changes the frame, and the swap of channels would be seen


def test_contracts_of_the_hosts(tmp_path: Path) -> None:
    """FFmpeg reads names, type and four dimensions; vs-mlrt sets the size of its tiles and reads that of the output.

    FFmpeg: libavfilter/dnn/dnn_backend_onnx.c; vs-mlrt: common/onnx_utils.cpp, vsort/vs_onnxruntime.cpp.
    """
    generator = create_edge().eval()
    model = add_float_interface(export_core(generator), get_view(generator), name="float")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for (value,) in (session.get_inputs(), session.get_outputs()):
        assert (value.type, value.shape) == ("tensor(float)", [1, 3, "height", "width"])
    for side, size in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], (41, 67), strict=True):
        side.dim_value = size
    for side in model.graph.output[0].type.tensor_type.shape.dim[2:]:
        side.ClearField("dim_value")
    del model.graph.value_info[:]
    tile = onnxruntime.InferenceSession(onnx.shape_inference.infer_shapes(model).SerializeToString())
    assert tile.get_outputs()[0].shape == [1, 3, 41, 67]


@pytest.mark.parametrize("plugin", ["ort", "ov"])
def test_vs_mlrt_runs_it(plugin: str, tmp_path: Path) -> None:
    vapoursynth = pytest.importorskip("vapoursynth", reason="vapoursynth is not installed (Python 3.12 or newer)")
    if not hasattr(vapoursynth.core, plugin):
        pytest.skip(f"vapoursynth-mlrt-{plugin} is not installed")
    generator = create_edge().eval()
    path = tmp_path / "float.onnx"
    onnx.save(add_float_interface(export_core(generator), get_view(generator), name="float"), path)
    frame = make_image(67, 41)
    values = to_rgb(frame)[0]

    def fill(n: int, f: object) -> object:
        filled = f.copy()
        for plane in range(3):
            np.asarray(filled[plane])[:] = values[plane]
        return filled

    clip = vapoursynth.core.std.BlankClip(width=67, height=41, format=vapoursynth.RGBS, length=1)
    clip = vapoursynth.core.std.ModifyFrame(clip, clip, fill)
    result = getattr(vapoursynth.core, plugin).Model(clip, network_path=str(path)).get_frame(0)
    output = np.stack([np.asarray(result[plane]) for plane in range(3)])
    expected = restore_frames(generator, torch.from_numpy(frame[None])).numpy()[0].astype(int)
    assert np.abs(to_bgr(output[None]) - expected).max() <= 1


def test_every_precision_has_an_export_and_only_other_programs_take_it(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = write_run(tmp_path / "run")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "run"), "--out", str(out), "--pairs", str(pairs), "--interface", "float_nchw"]
    assert main([*arguments, "--pixels", "yuv420"]) == 2
    assert main([*arguments, "--pixels", "bgr", "--calib-method", "minmax"]) == 0
    report = json.loads((out / "report.json").read_text())
    frame = make_image(45, 61)
    expected = restore_frames(generator, torch.from_numpy(frame[None])).numpy()[0].astype(int)
    for precision, most in (("fp32", 1), ("fp16", 2), ("int8", 40), ("int8_cpu", 40)):
        path = out / f"deblur_{precision}_float_nchw.onnx"
        assert path.name in report["files"]
        assert path.name in (out / "report.md").read_text()
        (output,) = onnxruntime.InferenceSession(path).run(None, {"blurred": to_rgb(frame)})
        assert np.abs(to_bgr(output) - expected).max() <= most
    with pytest.raises(EngineError, match=r"is for other programs.*; give deblur_fp32.onnx"):
        open_engine(out / "deblur_fp32_float_nchw.onnx")
    lines: list[str] = []
    open_engine(out, say=lines.append).close()
    assert "float_nchw" not in " ".join(lines)
    capsys.readouterr()
    assert main([*arguments[:-2], "--pixels", "bgr", "--calib-method", "minmax"]) == 0
    assert not list(out.glob("*float_nchw*"))  # those of the earlier export are removed


def test_an_export_that_differs_from_its_engine_is_refused(pairs: Path) -> None:
    generator = create_edge().eval()
    core, view = export_core(generator), get_view(generator)
    from export.network import Network

    engine = create_restorer(Network(generator, {}, "").wrap(core))
    wrong = dataclasses.replace(view, pixel_range=(0.0, 2.0))
    assert make_float_export(core, view, engine=engine, pairs=list(read_pairs(pairs)), name="float")
    with pytest.raises(EngineError, match=r"differs from the engine for 8-bit frames \(\d+\.\d dB on 0.png"):
        make_float_export(core, wrong, engine=engine, pairs=list(read_pairs(pairs)), name="float")
