"""Export of a checkpoint: verified and described engines, published all or none, with cached steps."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from export import __main__ as command
from export import chain, engine_maker, int8_chain, network
from export.__main__ import main
from export.planes import planes_from_bgr, restore_planes
from export.quantization import precision
from export.quantization.sensitivity import QuantizedCore
from runtime.engines import BUNDLED, open_engine
from runtime.metrics import psnr_db
from runtime.sidecar import read_sidecar
from tests.conftest import ROOT, make_image
from tests.export.conftest import BUNDLED_RUN, write_run
from tests.export.test_fuse import NAMES as NETWORKS
from tests.export.test_fuse import REDUCED
from train.checkpoint import publish
from train.config import apply_overrides
from train.models import create_generator, restore_frames
from train.models.half_resolution import HalfResolution
from train.recipes import RECIPES

PRECISIONS = ("fp16", "fp32", "int8", "int8_cpu")
NAMES = sorted(f"deblur_{name}{form}.onnx" for name in PRECISIONS for form in ("", "_yuv420"))


def engines(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.onnx"))


LARGEST_DIFFERENCES = {"fp32": 1, "fp16": 2, "int8_cpu": 40}
"""Codes by precision."""
EXCEPTIONS = {("restormer", "int8_cpu"): 60}
"""With random weights, attention makes rounding errors larger."""


@pytest.mark.parametrize("name", NETWORKS)
def test_every_generator_becomes_engines_that_agree_with_it(name: str, tmp_path: Path, pairs: Path) -> None:
    generator = write_run(tmp_path / "run", name=name)
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--pixels", "bgr"]
    assert main([*arguments, "--calib-method", "minmax", "--precision", "fp32,fp16,int8_cpu"]) == 0
    photograph = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))
    for precision_name in ("fp32", "fp16", "int8_cpu"):
        engine = open_engine(tmp_path / "out" / f"deblur_{precision_name}.onnx", provider="cpu")
        for height, width in ((45, 61), (1, 1), (187, 250)):
            frame = photograph[None, :height, :width]
            expected = restore_frames(generator, torch.from_numpy(frame)).numpy().astype(int)
            difference = np.abs(engine.infer(frame).astype(int) - expected)
            most = EXCEPTIONS.get((name, precision_name), LARGEST_DIFFERENCES[precision_name])
            assert difference.max() <= most
        assert engine.spec.generator.startswith(f"{name}(")
        assert engine.spec.loss_db <= engine.spec.budget_db


@pytest.mark.parametrize("name", ["edge", pytest.param("two_stage_cnn", marks=pytest.mark.slow)])
def test_engines_for_planes_agree_with_the_network(name: str, tmp_path: Path, pairs: Path) -> None:
    generator = write_run(tmp_path / "run", name=name)
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--pixels", "yuv420"]
    assert main([*arguments, "--calib-method", "minmax"]) == 0
    assert engines(tmp_path / "out") == sorted(f"deblur_{name}_yuv420.onnx" for name in PRECISIONS)
    photograph = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))
    planes = planes_from_bgr(photograph[:186, :250])
    expected = restore_planes(generator, planes).astype(int)
    for precision_name, most in (("fp32", 1), ("fp16", 2), ("int8", 40), ("int8_cpu", 40)):
        engine = open_engine(tmp_path / "out" / f"deblur_{precision_name}_yuv420.onnx", provider="cpu")
        assert np.abs(engine.infer(planes[None])[0].astype(int) - expected).max() <= most
        assert (engine.spec.pixels, engine.spec.precision) == ("yuv420", precision_name)
        assert engine.spec.loss_db <= engine.spec.budget_db


def test_a_pass_at_half_the_resolution_is_quantised(tmp_path: Path, pairs: Path) -> None:
    options = REDUCED["edge"] | {"half_pass": True}
    torch.manual_seed(0)
    generator = create_generator("edge", **options).eval()
    publish(generator, apply_overrides(RECIPES["edge-s"], [f"options={options}"]).to_json(), tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--pixels", "bgr,yuv420"]
    assert main([*arguments, "--calib-method", "minmax", "--precision", "int8_cpu"]) == 0
    photograph = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))[:186, :250]
    planes = planes_from_bgr(photograph)
    for name, frame, expected in (
        ("int8_cpu", photograph, restore_frames(generator, torch.from_numpy(photograph[None])).numpy()[0]),
        ("int8_cpu_yuv420", planes, restore_planes(generator, planes)),
    ):
        engine = open_engine(tmp_path / "out" / f"deblur_{name}.onnx", provider="cpu")
        assert engine.spec.float_layers == 0
        assert psnr_db(engine.infer(frame[None])[0], expected) > psnr_db(frame, expected) + 6


@pytest.mark.parametrize("pixels", ["bgr", "yuv420"])
def test_engines_at_half_the_resolution_are_quantised_and_agree(pixels: str, tmp_path: Path, pairs: Path) -> None:
    generator = HalfResolution(write_run(tmp_path / "run"))
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--work-scale", "2"]
    assert main([*arguments, "--calib-method", "minmax", "--precision", "int8_cpu", "--pixels", pixels]) == 0
    (path,) = (tmp_path / "out").glob("*.onnx")
    engine = open_engine(path, provider="cpu")
    assert engine.spec.generator.endswith("at half the resolution")
    assert engine.spec.float_layers == 0
    photograph = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))[:186, :250]
    frame = planes_from_bgr(photograph) if pixels == "yuv420" else photograph
    expected = (
        restore_planes(generator, frame)
        if pixels == "yuv420"
        else restore_frames(generator, torch.from_numpy(frame[None])).numpy()[0]
    )
    restored = engine.infer(frame[None])[0]
    assert psnr_db(restored, expected) > psnr_db(frame, expected) + 6


def test_engines_describe_themselves_and_the_report_is_complete(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), "--out", str(out), "--pairs", str(pairs)]) == 0
    assert engines(out) == NAMES
    report = json.loads((out / "report.json").read_text())
    for precision_name, entry in report["engines"].items():
        spec = open_engine(out / entry["file"]).spec
        assert spec.to_dict() == {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry["spec"].items()
        }
        assert (spec.variant, spec.measured_on, spec.forced) == (precision_name, "pairs", False)
    assert set(report["calibration"]["agreement_db"]) == {"minmax", "entropy", "percentile"}
    assert report["calibration"]["method"] in report["calibration"]["agreement_db"]
    assert report["layer_costs_db"] == {}  # measured only if all layers together exceed the budget
    assert report["macs_per_pixel"]["before"] >= report["macs_per_pixel"]["after"] > 0
    assert set(report["tile_costs_db"]) == {"0", "16", "32"}
    text = (out / "report.md").read_text()
    assert text.strip() in capsys.readouterr().out
    assert all(name in text for name in NAMES)
    assert report["blurred"]["psnr_db"] > report["engines"]["fp32"]["spec"]["psnr_db"]  # the network is not trained
    assert "The blurred images are" in text
    assert cv2.imread(str(out / "pareto.png")).std() > 5


def test_a_second_export_computes_only_what_changed(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs)]
    assert main(arguments) == 0
    monkeypatch.setattr(command, "export", lambda *_: pytest.fail("it should not have been called"))
    assert main(arguments) == 0
    assert "nothing has changed" in capsys.readouterr().out
    monkeypatch.undo()
    computed: list[str] = []
    monkeypatch.setattr(chain.Chain, "run", _record_steps(chain.Chain.run, computed))
    assert main([*arguments, "--budget-db", "0.2"]) == 0
    assert computed == ["quantize_within_budget_int8", "quantize_within_budget_int8_cpu"] * 2  # for BGR and for planes
    computed.clear()
    cv2.imwrite(str(pairs / "blur" / "0.png"), cv2.blur(cv2.imread(str(pairs / "sharp" / "0.png")), (7, 1)))
    assert main([*arguments, "--budget-db", "0.2"]) == 0
    for_both = ["choose_residual", "quantize_within_budget_int8", "quantize_within_budget_int8_cpu"]
    assert sorted(computed) == sorted([*for_both, *for_both])
    undamaged = (tmp_path / "out" / NAMES[0]).read_bytes()
    (tmp_path / "out" / NAMES[0]).write_bytes(b"damaged")
    assert main([*arguments, "--budget-db", "0.2"]) == 0
    assert (tmp_path / "out" / NAMES[0]).read_bytes() == undamaged


def _record_steps(original: object, computed: list[str]) -> object:
    def run(self: chain.Chain) -> object:
        result = original(self)
        computed.extend(result.computed_steps)
        return result

    return run


def test_a_model_worse_than_the_one_it_replaces_is_refused(
    tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run", scale=0.1)
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--precision", "fp32"]
    assert main(arguments) == 0
    before = (tmp_path / "out" / "deblur_fp32.onnx").read_bytes()
    write_run(tmp_path / "run", seed=1, scale=20)
    assert main(arguments) == 4
    assert "is worse than the one it would replace" in capsys.readouterr().err
    assert (tmp_path / "out" / "deblur_fp32.onnx").read_bytes() == before
    assert main([*arguments, "--force"]) == 0
    assert (tmp_path / "out" / "deblur_fp32.onnx").read_bytes() != before


@pytest.mark.parametrize("fault", ["swapped channels", "wrong scale", "wrong half precision"])
def test_a_fault_in_any_step_is_caught_and_nothing_is_published(
    fault: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", name="two_stage_cnn" if fault == "swapped channels" else "edge", scale=4)
    words = "differs from PyTorch"
    if fault == "swapped channels":
        monkeypatch.setattr(chain, "to_bgr_order", lambda core, **_: core)
    elif fault == "wrong scale":
        original = network.add_pixel_interface
        monkeypatch.setattr(
            network,
            "add_pixel_interface",
            lambda core, view, **k: original(core, dataclasses.replace(view, pixel_range=(0.0, 2.0)), **k),
        )
    else:
        words = "loses"

        def convert_wrongly(core: onnx.ModelProto, frames: object) -> onnx.ModelProto:
            model = precision.convert_to_fp16(core, frames)
            for tensor in model.graph.initializer:
                values = onnx.numpy_helper.to_array(tensor)
                if values.ndim == 4:
                    tensor.CopyFrom(onnx.numpy_helper.from_array((values * 3).astype(values.dtype), tensor.name))
            return model

        monkeypatch.setattr(engine_maker, "convert_to_fp16", convert_wrongly)
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--precision"]
    assert main([*arguments, "fp32,fp16"]) == 4
    assert words in capsys.readouterr().err
    assert engines(tmp_path / "out") == []
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_badly_quantized_layer_returns_to_float_or_the_engine_is_refused(
    tmp_path: Path, few_frames: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The range before a convolution is wrong, so that the search keeps it in float."""
    original = int8_chain.calibrate_ranges

    def calibrate_wrongly(core: onnx.ModelProto, inputs: object, method: str) -> precision.Ranges:
        ranges = original(core, inputs, method)
        name = precision.list_convolutions(core)[3]
        (damaged,) = (node.input[0] for node in core.graph.node if node.name == name)
        low, high = ranges[damaged]
        return ranges | {damaged: (low / 300, high / 300)}

    monkeypatch.setattr(int8_chain, "calibrate_ranges", calibrate_wrongly)
    arguments = [str(BUNDLED_RUN), "--out", str(tmp_path / "out"), "--budget-db", "0.2"]
    arguments += ["--precision", "fp32,int8", "--calib", str(few_frames), "--calib-method", "minmax", "--pixels", "bgr"]
    assert main(arguments) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["engines"]["int8"]["spec"]["loss_db"] <= 0.2
    assert report["engines"]["int8"]["spec"]["float_layers"] == 5
    worst, *others = report["layer_costs_db"].values()
    assert worst > 5 * max(others)
    assert "## Loss of each layer" in (tmp_path / "out" / "report.md").read_text()
    # Without the search the same engine exceeds its budget and is refused.
    everything = QuantizedCore(onnx.ModelProto(), frozenset(report["layer_costs_db"]), 0.0)
    monkeypatch.setattr(int8_chain, "quantize_within_budget", lambda *_, **__: everything)
    assert main([*arguments[:2], str(tmp_path / "other"), *arguments[3:]]) == 4
    assert "its budget is 0.20" in capsys.readouterr().err
    assert engines(tmp_path / "other") == []


@pytest.mark.parametrize(
    ("name", "precisions"),
    [
        ("edge-s", "fp32,int8,int8_cpu"),
        ("edge-m", "fp16"),
        ("edge-l", "fp16"),
        ("edge-l-gan", "fp16"),
        pytest.param("edge-m", "int8,int8_cpu", marks=pytest.mark.slow),
        pytest.param("edge-l", "int8,int8_cpu", marks=pytest.mark.slow),
        pytest.param("edge-l-gan", "int8,int8_cpu", marks=pytest.mark.slow),
    ],
)
def test_bundled_engines_match_an_export_of_their_checkpoint(name: str, precisions: str, tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--name", name, "--precision", precisions]
    assert main([str(BUNDLED.with_name(name)), *arguments]) == 0
    frame = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "camera_0.jpg"))[None]
    for file in (f"{name}_{precision_name}.onnx" for precision_name in precisions.split(",")):
        exported, bundled = (open_engine(folder / file, provider="cpu") for folder in (tmp_path, BUNDLED.parent))
        # The choice of the calibration method measures with the INT8 kernels of this processor, so that INT8 engines
        # may differ by more than rounding.
        is_int8 = "_int8" in file
        assert psnr_db(exported.infer(frame)[0], bundled.infer(frame)[0]) > (45 if is_int8 else 55)
        assert exported.spec.weights_sha256 == bundled.spec.weights_sha256
        assert abs(exported.spec.psnr_db - bundled.spec.psnr_db) < (0.05 if is_int8 else 0.02)


def test_plans_are_built_with_the_engines_and_only_after_a_change(
    tmp_path: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "run"), "--out", str(out), "--pairs", str(pairs), "--calib-method", "minmax"]
    arguments += ["--pixels", "bgr"]
    plans = ["--target", "tensorrt-rtx", "--size", "64x48"]
    assert main([*arguments, *plans]) == 0
    report = json.loads((out / "report.json").read_text())
    for name in ("fp32", "fp16", "int8"):
        plan = out / f"deblur_{name}.plan"
        sidecar = read_sidecar(plan, plan.read_bytes())
        onnx_file = out / sidecar.onnx
        assert hashlib.sha256(onnx_file.read_bytes()).hexdigest() == sidecar.onnx_sha256
        assert sidecar.engine.loss_db == open_engine(onnx_file, provider="cpu").spec.loss_db
        assert report["plans"][name]["kernels"] == sidecar.kernels
    assert set(report["plans"]) == {"fp32", "fp16", "int8"}
    assert "| deblur_int8.plan |" in (out / "report.md").read_text()
    computed: list[str] = []
    monkeypatch.setattr(chain.Chain, "run", _record_steps(chain.Chain.run, computed))
    assert main([*arguments, *plans[:-1], "96x64"]) == 0
    assert computed == ["build_plan_fp32", "build_plan_fp16", "build_plan_int8"]
    computed.clear()
    (out / "deblur_fp16.plan").write_bytes(b"damaged")
    assert main([*arguments, *plans[:-1], "96x64"]) == 0
    assert computed == []
    assert (out / "deblur_fp16.plan").stat().st_size > 10_000
    assert main(arguments) == 0  # an export without plans removes the former ones
    assert not list(out.glob("*.plan*"))


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{tmp}/none"], 4, "no such folder"),
        (["{started}"], 4, "give its state.pt, or go on training"),
        (["{run}", "--pairs", "{tmp}"], 3, "no pairs found"),
        (["{run}", "--pairs", "{tmp}/none"], 3, "--pairs does not exist"),
        (["{run}", "--pairs", "{tmp}/unlike"], 3, "differ in size"),
        (["{run}", "--calib", "{tmp}/none"], 3, "--calib does not exist"),
        (["{run}", "--calib", "{tmp}/unlike/blur", "--precision", "int8"], 2, "too few calibration frames"),
        (["{run}", "--precision", "fp32,int4"], 2, "unknown precision: int4"),
        (["{run}", "--name", "a/b"], 2, "a name consists of letters"),
        (["{bare}"], 4, "no usable config.json"),
        (["{run}", "--target", "tensorrt-rtx", "--opt-size", "1x1"], 2, "width must not decrease"),
        (
            ["{run}", "--target", "tensorrt-rtx", "--size", "641x361"],
            2,
            "even sizes; give an even --size, or --pixels bgr",
        ),
        (["{run}", "--out", "{tmp}/file/out"], 6, "cannot write output"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "run")
    (tmp_path / "file").write_text("precious")
    write_run(tmp_path / "bare")
    (tmp_path / "bare" / "config.json").unlink()
    for kind, width in (("blur", 40), ("sharp", 41)):
        (tmp_path / "unlike" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "unlike" / kind / "a.png"), make_image(width, 30))
    (tmp_path / "started").mkdir()
    (tmp_path / "started" / "state.pt").write_bytes(b"of a run that was stopped before its first validation")
    folders = {name: tmp_path / name for name in ("run", "bare", "started")}
    filled = [argument.format(tmp=tmp_path, **folders) for argument in arguments]
    assert main(["--out", str(tmp_path / "out"), "--pairs", str(pairs), "--precision", "fp32", *filled]) == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert engines(tmp_path / "out") == []
