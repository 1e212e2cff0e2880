"""Plans are really built, by TensorRT-RTX, which needs no GPU for it; what it makes of the graphs is checked."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from export.graph.channel_order import in_bgr
from export.graph.fuse import collapsed
from export.graph.pixel_interface import with_pixel_interface
from export.plan.__main__ import main
from export.plan.builder import PlanConfig, plan_from_onnx
from export.quantization.calibration import planes, ranges
from export.quantization.precision import convolutions, fp16, int8, prepared
from export.torch_to_onnx import onnx_from_generator, view_of
from runtime.engines import BUNDLED
from runtime.engines.cuda import Device
from runtime.errors import EngineError
from runtime.sidecar import Sidecar, read_sidecar
from runtime.spec import EngineSpec
from tests.conftest import ROOT, picture, without_gpu
from tests.export.test_fuse import REDUCED
from train.models import create_generator

FP32 = BUNDLED.with_name("edge-s_fp32.onnx")
RTX = ["--target", "tensorrt-rtx"]
OPTIONS = {"two_stage_cnn": {}, "edge": {}, "resnet_unet": REDUCED["resnet_unet"]}


@pytest.fixture(scope="module")
def cores() -> dict[tuple[str, str], onnx.ModelProto]:
    """Engines of every network and precision, every convolution that may be quantised in 8 bits."""
    made = {}
    for name, options in OPTIONS.items():
        torch.manual_seed(0)
        generator = create_generator(name, **options).eval()
        core = prepared(collapsed(onnx_from_generator(generator)))
        if generator.channel_order == "RGB":
            core = in_bgr(core)
        view = view_of(generator)
        wrapped = with_pixel_interface(core, view, spec=EngineSpec(name=name))
        frames = planes(wrapped, core.graph.input[0].name, [picture(64, 64, seed=seed) for seed in range(2)])
        found = ranges(core, frames, "minmax")
        made[name, "fp32"] = wrapped
        for precision, rewritten in (
            ("fp16", fp16(core, frames)),
            ("int8", int8(core, found, "int8", quantised=convolutions(core))),
        ):
            made[name, precision] = with_pixel_interface(rewritten, view, spec=EngineSpec(name=name))
    return made


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", OPTIONS)
def test_kernels_are_what_the_graph_asks_for(
    name: str, precision: str, cores: dict[tuple[str, str], onnx.ModelProto]
) -> None:
    model = cores[name, precision]
    config = PlanConfig(flavour="tensorrt-rtx", min_size=(320, 192), opt_size=(320, 192), max_size=(320, 192))
    plan, sidecar = plan_from_onnx(model.SerializeToString(), EngineSpec(name=name), config, name="x.onnx")
    total = sum(node.op_type == "Conv" for node in model.graph.node)
    expected = {"fp32": {"Float": total}, "fp16": {"Half": total}, "int8": {"Float": 2, "Int8": total - 2}}
    assert sidecar.convolutions == expected[precision]
    assert sidecar.pixel_kernels == 2  # one before, one after
    assert sidecar.plan_sha256 == hashlib.sha256(plan).hexdigest()


def test_any_size_up_to_the_greatest(tmp_path: Path) -> None:
    out = tmp_path / "a.plan"
    assert main([str(FP32), "--out", str(out), *RTX, "--max-size", "2000x1400", "--batch", "2"]) == 0
    sidecar = read_sidecar(out, out.read_bytes())
    assert (sidecar.engine.width, sidecar.engine.height, sidecar.batch) == ((64, 2000), (64, 1400), (1, 2))


def test_the_command_writes_a_plan_and_says_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "deblur_fp32.plan"
    arguments = [str(FP32), "--out", str(out), *RTX, "--size", "64x48", "--compute-capability", "8.9,12.0"]
    assert main(arguments) == 0
    assert "GPUs 8.9, 12.0" in capsys.readouterr().out
    assert sorted(path.name for path in out.parent.iterdir()) == ["deblur_fp32.plan", "deblur_fp32.plan.json"]
    sidecar = Sidecar.from_json(out.with_name("deblur_fp32.plan.json").read_text())
    assert sidecar.flavour == "tensorrt-rtx"
    assert sidecar.compute_capabilities == ("8.9", "12.0")
    assert (sidecar.engine.width, sidecar.engine.height) == ((64, 64), (48, 48))
    assert sidecar.engine.loss_db == 0.0
    assert sidecar.onnx == FP32.name
    assert sidecar.onnx_sha256 == hashlib.sha256(FP32.read_bytes()).hexdigest()
    assert Sidecar.from_json(sidecar.to_json()) == sidecar
    before = out.read_bytes()
    assert main(arguments) == 0
    assert out.read_bytes() == before


def test_it_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules['torch'] = sys.modules['onnx'] = sys.modules['train'] = None
from export.plan.__main__ import main
sys.exit(main({[str(FP32), "--out", str(tmp_path / "a.plan"), *RTX, "--size", "64x48"]!r}))
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert (tmp_path / "a.plan").stat().st_size > 100_000


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{tmp}/none.onnx", *RTX], 4, "doesn't exist"),
        (["{tmp}/junk.onnx", *RTX], 4, "not an engine that ONNX Runtime can load"),
        (["{cpu}", *RTX], 4, "unsupported input type of UINT8"),
        (["{fp32}", *RTX, "--workspace-mib", "1"], 4, "within workspace limit"),
        (["{fp32}", *RTX, "--compute-capability", "9.0"], 2, "does not run on compute capability 9.0; give one of 7.5"),
        (["{fp32}", *RTX, "--min-size", "2000x64"], 2, "width must grow from --min-size"),
        (["{fp32}", *RTX, "--batch", "0"], 2, "batch must be at least 1"),
        (["{fp32}", "--dla", "0"], 2, "DLA works on one size"),
        (["{fp32}", *RTX, "--dla", "0", "--size", "64x48"], 2, "neither DLA nor calibrators"),
        (["{fp32}", "--compute-capability", "8.9"], 2, "builds for the GPU it runs on"),
        (["{fp32}", *RTX, "--calibrator", "entropy"], 2, "belong together"),
        (["{fp32}", *RTX, "--out", "{tmp}/a.engine"], 2, "a plan is called .plan"),
        (["{fp32}", *RTX, "--out", "{tmp}/junk.onnx/a.plan"], 6, "cannot write output"),
    ],
)
def test_bad_input_gets_one_line_and_its_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"not onnx")
    names = {"tmp": tmp_path, "cpu": BUNDLED, "fp32": FP32}
    assert main(["--out", str(tmp_path / "a.plan"), *(each.format(**names) for each in arguments)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == [tmp_path / "junk.onnx"]


@without_gpu
def test_without_a_driver_tensorrt_is_not_touched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its builder ends the process there; a stand-in shows that it is not called."""
    monkeypatch.setattr("export.plan.builder.import_tensorrt", lambda flavour: object())
    assert main([str(FP32), "--out", str(tmp_path / "a.plan")]) == 4
    assert "no NVIDIA driver is installed here" in capsys.readouterr().err


def test_a_package_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(FP32), "--out", str(tmp_path / "a.plan")])
    error = capsys.readouterr().err
    assert code == 4
    assert "tensorrt cannot be imported" in error or "no NVIDIA driver" in error


class Recorder:
    """A stand-in for one of TensorRT's objects: remembers what is set and called, and answers with `answers`."""

    def __init__(self, **answers: object) -> None:
        self.__dict__.update(answers)
        self.__dict__["calls"] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: object, **options: object) -> object:
            self.calls.append((name, *arguments, *options.values()))
            return None

        return call


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """TensorRT 10 as far as `plan_from_onnx` uses it, on a machine with a GPU; returns its settings."""
    cache = SimpleNamespace(serialize=lambda: b"measured")
    settings = Recorder(create_timing_cache=lambda content: cache)
    settings.set_timing_cache = lambda cache, ignore_mismatch: settings.calls.append("cache") or len(settings.calls) > 1
    profile = Recorder()
    network = Recorder(num_outputs=1, get_input=lambda index: SimpleNamespace(name="blurred"))
    settings.profile, settings.network_flags = profile, []

    def create_network(flags: int) -> Recorder:
        settings.network_flags.append(flags)
        return network

    made = Recorder(
        create_builder_config=lambda: settings,
        create_network=create_network,
        create_optimization_profile=lambda: profile,
        build_serialized_network=lambda *_: b"plan",
    )

    class Base:
        def __init__(self) -> None: ...

    module = SimpleNamespace(
        __version__="10.3.0",
        ILogger=type("ILogger", (Base,), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)}),
        Builder=lambda log: made,
        OnnxParser=lambda network, log: SimpleNamespace(parse=lambda content: True, num_errors=0),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        DeviceType=SimpleNamespace(DLA="dla"),
        BuilderFlag=SimpleNamespace(GPU_FALLBACK="fallback", INT8="int8"),
        IInt8EntropyCalibrator2=Base,
    )
    monkeypatch.setattr("export.plan.builder.import_tensorrt", lambda flavour: module)
    monkeypatch.setattr("export.plan.builder.probe", lambda: Device("Orin", "8.7", integrated=True, driver="12.6"))
    return settings


def test_tensorrt_is_told_everything(builder: Recorder, tmp_path: Path) -> None:
    config = PlanConfig(min_size=(8, 4), opt_size=(8, 4), max_size=(8, 4), batch=2, workspace_mib=3, dla_core=1)
    cache = tmp_path / "deep" / "timing.cache"
    plan, sidecar = plan_from_onnx(b"onnx", EngineSpec(name="x"), config, name="x.onnx", timing_cache=cache)
    assert plan == b"plan"
    assert builder.network_flags == [1 << 1]
    assert ("set_shape", "blurred", (1, 4, 8, 3), (2, 4, 8, 3), (2, 4, 8, 3)) in builder.profile.calls
    assert ("set_memory_pool_limit", "workspace", 3 << 20) in builder.calls
    assert (builder.default_device_type, builder.DLA_core) == ("dla", 1)
    assert ("set_flag", "fallback") in builder.calls
    assert cache.read_bytes() == b"measured"
    assert sidecar.compute_capabilities == ("8.7",)
    assert (sidecar.version, sidecar.dla_core, sidecar.kernels) == ("10.3.0", 1, None)
    rebuilt = sidecar.rebuild_arguments(tmp_path / "x.plan")
    assert rebuilt[-8:] == ["--size", "8x4", "--batch", "2", "--dla", "1", "--workspace-mib", "3"]


def test_a_full_disk_costs_the_timing_cache_not_the_plan(builder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plan, _ = plan_from_onnx(
        b"onnx", EngineSpec(name="x"), PlanConfig(), name="x.onnx", timing_cache=tmp_path / "file" / "cache"
    )
    assert plan == b"plan"


def test_calibration_gets_frames_and_its_plan_claims_nothing(
    builder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[np.ndarray] = []
    driver = SimpleNamespace(mem_alloc=lambda size: 1234, memcpy_htod=lambda memory, frame: taken.append(frame.copy()))
    for name, fake in (("pycuda", SimpleNamespace(driver=driver)), ("pycuda.driver", driver)):
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setitem(sys.modules, "pycuda.autoprimaryctx", SimpleNamespace())
    config = PlanConfig(min_size=(8, 4), opt_size=(8, 4), max_size=(8, 4), calibrator="entropy")
    frames = [picture(16, 9, seed=seed) for seed in range(3)]
    spec = EngineSpec(name="x", precision="fp32", psnr_db=30.0, loss_db=0.0)
    _, sidecar = plan_from_onnx(b"onnx", spec, config, name="x.onnx", frames=iter(frames))
    assert builder.network_flags == [0]
    assert ("set_flag", "int8") in builder.calls
    calibrator = builder.int8_calibrator
    assert calibrator.get_batch_size() == 1
    while calibrator.get_batch(["blurred"]) == [1234]:
        pass
    assert [frame.shape for frame in taken] == [(4, 8, 3)] * 3
    assert calibrator.read_calibration_cache() is None
    assert (sidecar.engine.precision, sidecar.engine.loss_db) == ("unknown", None)
    assert sidecar.rebuild_arguments(Path("x.plan"))[-4:] == ["--calibrator", "entropy", "--calib", "FRAMES"]


def test_on_tensorrt_11_it_says_why_there_are_no_calibrators(builder: Recorder) -> None:
    from export.plan.calibrator import calibrator

    with pytest.raises(EngineError, match=r"TensorRT 11\.1 has no calibrators: from 11 on"):
        calibrator(SimpleNamespace(__version__="11.1"), "entropy", [], (8, 4))
