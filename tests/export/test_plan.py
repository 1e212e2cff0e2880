"""Plans are built by TensorRT-RTX, which needs no GPU for that; its kernels are checked against the graphs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest

from export.plan.__main__ import main
from export.plan.builder import build_plan
from export.plan.config import PlanConfig
from export.plan.layer_report import parse_layers
from runtime.engines import BUNDLED, find_yuv420_engine
from runtime.engines.cuda import Device
from runtime.errors import EngineError, UsageError
from runtime.sidecar import Sidecar, read_sidecar
from runtime.spec import EngineSpec
from tests.conftest import ROOT, make_image, without_gpu
from tests.export.test_fuse import REDUCED
from tests.rig.plan_table import make_untrained_engines
from tests.standin import HostBuffer, HostCuda

FP32 = BUNDLED.with_name("edge-s_fp32.onnx")
RTX = ["--target", "tensorrt-rtx"]
OPTIONS = {"two_stage_cnn": {}, "edge": {}, "resnet_unet": REDUCED["resnet_unet"]}


@pytest.fixture(scope="module")
def engines() -> dict[tuple[str, str], onnx.ModelProto]:
    """Engines by network and precision; in INT8 every convolution that may be quantised is."""
    return {
        (name, precision): model
        for name, options in OPTIONS.items()
        for precision, model in make_untrained_engines(name, **options).items()
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", OPTIONS)
def test_kernels_have_the_types_of_the_graph(
    name: str, precision: str, engines: dict[tuple[str, str], onnx.ModelProto]
) -> None:
    model = engines[name, precision]
    config = PlanConfig(flavour="tensorrt-rtx", min_size=(320, 192), opt_size=(320, 192), max_size=(320, 192))
    plan, sidecar = build_plan(model.SerializeToString(), EngineSpec(name=name), config, name="x.onnx")
    total = sum(node.op_type == "Conv" for node in model.graph.node)
    ends = 3 if name == "resnet_unet" else 2  # two convolutions of resnet_unet read the image
    expected = {"fp32": {"Float": total}, "fp16": {"Half": total}, "int8": {"Half": ends, "Int8": total - ends}}
    assert sidecar.convolutions == expected[precision]
    assert sidecar.pixel_kernels == 2  # one before the network, one after it
    assert sidecar.plan_sha256 == hashlib.sha256(plan).hexdigest()


def test_a_plan_takes_at_least_one_frame() -> None:
    with pytest.raises(UsageError, match="batch must be at least 1"):
        PlanConfig(batch=0)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_plan_for_several_sizes_needs_no_more_memory_than_one_for_the_largest(
    name: str, precision: str, engines: dict[tuple[str, str], onnx.ModelProto]
) -> None:
    """A size that the builder cannot bound costs gigabytes: 68 GB for edge-s with Mod(-size, 16)."""
    content, largest = engines[name, precision].SerializeToString(), (640, 384)
    scratch = []
    for smallest in (largest, (64, 64)):
        config = PlanConfig(flavour="tensorrt-rtx", min_size=smallest, opt_size=largest, max_size=largest)
        _, sidecar = build_plan(content, EngineSpec(name=name), config, name="x.onnx")
        scratch.append(sidecar.scratch_bytes)
    assert 0 < scratch[1] <= 1.2 * scratch[0]


def test_a_plan_for_any_size_up_to_the_largest(tmp_path: Path) -> None:
    out = tmp_path / "a.plan"
    assert main([str(FP32), "--out", str(out), *RTX, "--max-size", "2000x1400", "--batch", "2"]) == 0
    sidecar = read_sidecar(out, out.read_bytes())
    assert (sidecar.engine.width, sidecar.engine.height, sidecar.batch) == ((64, 2000), (64, 1400), (1, 2))


def test_plans_of_both_forms_of_frames_lie_beside_each_other(tmp_path: Path) -> None:
    """The runtime finds the plan for planes of the bundled engine beside the one for BGR."""
    sizes = ["--min-size", "64x64", "--opt-size", "128x96", "--max-size", "320x192"]
    for name in ("edge-s_fp16", "edge-s_fp16_yuv420"):
        assert main([str(FP32.with_name(f"{name}.onnx")), "--out", str(tmp_path / f"{name}.plan"), *RTX, *sizes]) == 0
    twin = find_yuv420_engine(tmp_path / "edge-s_fp16.plan")
    assert twin == tmp_path / "edge-s_fp16_yuv420.plan"
    spec = read_sidecar(twin, twin.read_bytes()).engine
    assert (spec.pixels, spec.width, spec.height) == ("yuv420", (64, 320), (64, 192))


def test_the_command_writes_a_plan_and_describes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_building_needs_neither_torch_nor_onnx(tmp_path: Path) -> None:
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
        (["{fp32}", *RTX, "--min-size", "2000x64"], 2, "width must not decrease from --min-size"),
        (["{planes}", *RTX, "--size", "65x48"], 2, "planes of 4:2:0 need even sizes"),
        (["{fp32}", "--dla", "0"], 2, "DLA needs frames of one size"),
        (["{fp32}", *RTX, "--dla", "0", "--size", "64x48"], 2, "neither DLA nor calibrators"),
        (["{fp32}", "--compute-capability", "8.9"], 2, "builds for the GPU that it runs on"),
        (["{fp32}", *RTX, "--calibrator", "entropy"], 2, "belong together"),
        (["{fp32}", *RTX, "--out", "{tmp}/a.engine"], 2, "a plan is called .plan"),
        (["{fp32}", *RTX, "--out", "{tmp}/junk.onnx/a.plan"], 6, "cannot write output"),
    ],
)
def test_bad_input_gets_one_line_and_its_exit_code(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"not onnx")
    names = {"tmp": tmp_path, "cpu": BUNDLED, "fp32": FP32, "planes": FP32.with_name("edge-s_fp16_yuv420.onnx")}
    assert main(["--out", str(tmp_path / "a.plan"), *(argument.format(**names) for argument in arguments)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert list(tmp_path.iterdir()) == [tmp_path / "junk.onnx"]


@without_gpu
def test_without_a_driver_the_builder_is_not_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a driver TensorRT's builder ends the process; an empty stand-in shows that nothing calls it."""
    monkeypatch.setattr("export.plan.builder.import_tensorrt", lambda flavour: object())
    assert main([str(FP32), "--out", str(tmp_path / "a.plan")]) == 4
    assert "no NVIDIA driver is installed here" in capsys.readouterr().err


def test_a_missing_package_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main([str(FP32), "--out", str(tmp_path / "a.plan")])
    error = capsys.readouterr().err
    assert code == 4
    assert "tensorrt cannot be imported" in error or "no NVIDIA driver" in error


class Recorder:
    """Stand-in for an object of TensorRT: remembers attributes and calls; `answers` are its known attributes."""

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
    """Replace TensorRT 10 by the parts that `build_plan` uses, on a machine with a GPU; return its settings."""
    cache = SimpleNamespace(serialize=lambda: b"measured")
    settings = Recorder(create_timing_cache=lambda content: cache)
    settings.set_timing_cache = lambda cache, ignore_mismatch: settings.calls.append("cache") or len(settings.calls) > 1
    profile = Recorder()
    network = Recorder(num_outputs=1, get_input=lambda index: SimpleNamespace(name="blurred"))
    settings.profile, settings.network_flags = profile, []

    def create_network(flags: int) -> Recorder:
        settings.network_flags.append(flags)
        return network

    trt_builder = Recorder(
        create_builder_config=lambda: settings,
        create_network=create_network,
        create_optimization_profile=lambda: profile,
        build_serialized_network=lambda *_: b"plan",
    )
    settings.trt_builder = trt_builder

    class Base:
        def __init__(self) -> None: ...

    module = SimpleNamespace(
        __version__="10.3.0",
        ILogger=type("ILogger", (Base,), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1)}),
        Builder=lambda log: trt_builder,
        OnnxParser=lambda network, log: SimpleNamespace(parse=lambda content: True, num_errors=0),
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        DeviceType=SimpleNamespace(DLA="dla"),
        BuilderFlag=SimpleNamespace(GPU_FALLBACK="fallback", INT8="int8"),
        IInt8EntropyCalibrator2=Base,
    )
    settings.module = module
    monkeypatch.setattr("export.plan.builder.import_tensorrt", lambda flavour: module)
    monkeypatch.setattr("export.plan.builder.probe", lambda: Device("Orin", "8.7", integrated=True, driver="12.6"))
    return settings


def test_all_settings_reach_tensorrt(builder: Recorder, tmp_path: Path) -> None:
    config = PlanConfig(min_size=(8, 4), opt_size=(8, 4), max_size=(8, 4), batch=2, workspace_mib=3, dla_core=1)
    cache = tmp_path / "deep" / "timing.cache"
    plan, sidecar = build_plan(b"onnx", EngineSpec(name="x"), config, name="x.onnx", timing_cache=cache)
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


def test_layers_that_only_manage_memory_are_no_kernels() -> None:
    line = (
        "Name: a, LayerType: {}, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, "
        "Metadata: [ONNX Layer: conv]"
    )
    kinds = ["allocate", "correlation", "deallocate", "shape_call", "signal", "wait"]
    (layer,) = parse_layers(line.format(kind) for kind in kinds)
    assert layer.kind == "correlation"


def test_only_plans_for_one_size_take_the_highest_optimization_level(builder: Recorder) -> None:
    builder.builder_optimization_level = 3
    for largest, level in (((16, 4), 3), ((8, 4), 5)):
        config = PlanConfig(min_size=(8, 4), opt_size=(8, 4), max_size=largest)
        build_plan(b"onnx", EngineSpec(name="x"), config, name="x.onnx")
        assert builder.builder_optimization_level == level


@pytest.mark.parametrize("kind", ["damaged", "folder"])
def test_a_timing_cache_that_cannot_be_used_is_measured_again(kind: str, builder: Recorder, tmp_path: Path) -> None:
    """TensorRT returns no cache for a damaged file."""
    path = tmp_path / "timing.cache"
    if kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"damaged")
    create = builder.create_timing_cache
    builder.create_timing_cache = lambda content: None if content else create(content)
    plan, _ = build_plan(b"onnx", EngineSpec(name="x"), PlanConfig(), name="x.onnx", timing_cache=path)
    assert plan == b"plan"
    if kind == "damaged":
        assert path.read_bytes() == b"measured"


def test_an_unwritable_timing_cache_does_not_cost_the_plan(builder: Recorder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plan, _ = build_plan(
        b"onnx", EngineSpec(name="x"), PlanConfig(), name="x.onnx", timing_cache=tmp_path / "file" / "cache"
    )
    assert plan == b"plan"


def test_calibration_reads_all_frames_and_its_plan_states_no_scores(
    builder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = HostCuda()
    monkeypatch.setattr("export.plan.calibrator.open_cuda", lambda: cuda)
    copied: list[np.ndarray] = []

    def build(*_: object) -> bytes:
        """Calibrate as TensorRT does: it takes batches until there are no more."""
        calibrator = builder.int8_calibrator
        assert calibrator.get_batch_size() == 1
        assert calibrator.read_calibration_cache() is None
        (buffer,) = (item for item in cuda.live if isinstance(item, HostBuffer))
        while calibrator.get_batch(["blurred"]) == [buffer.device]:
            copied.append(buffer.memory.reshape(4, 8, 3).copy())
        return b"plan"

    builder.trt_builder.build_serialized_network = build
    config = PlanConfig(min_size=(8, 4), opt_size=(8, 4), max_size=(8, 4), calibrator="entropy")
    frames = [make_image(16, 9, seed=seed) for seed in range(3)]
    spec = EngineSpec(name="x", precision="fp32", psnr_db=30.0, loss_db=0.0)
    _, sidecar = build_plan(b"onnx", spec, config, name="x.onnx", frames=iter(frames))
    assert builder.network_flags == [0]
    assert ("set_flag", "int8") in builder.calls
    assert np.array_equal(copied, [cv2.resize(frame, (8, 4)) for frame in frames])
    assert cuda.closed
    assert (sidecar.engine.precision, sidecar.engine.loss_db) == ("unknown", None)
    assert sidecar.rebuild_arguments(Path("x.plan"))[-4:] == ["--calibrator", "entropy", "--calib", "FRAMES"]


def test_tensorrt_11_has_no_calibrators(builder: Recorder) -> None:
    """Its BuilderFlag has no INT8 either."""
    builder.module.__version__ = "11.1"
    del builder.module.IInt8EntropyCalibrator2, builder.module.BuilderFlag.INT8
    config = PlanConfig(min_size=(8, 4), opt_size=(8, 4), max_size=(8, 4), calibrator="entropy")
    with pytest.raises(EngineError, match=r"TensorRT 11\.1 has no calibrators: from version 11 on"):
        build_plan(b"onnx", EngineSpec(name="x"), config, name="x.onnx")
