"""Implementations with another output are not timed, and speed-ups compare the right implementations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.harness.results import read_results, write_results
from benchmarks.harness.scenarios import BLOCK
from benchmarks.peers import __main__ as command
from benchmarks.peers import networks
from benchmarks.peers.__main__ import (
    check_implementation,
    limit_torch_threads,
    list_implementations,
    main,
    measure,
    plan_rounds,
)
from benchmarks.peers.baselines import (
    Implementation,
    Network,
    Restorer,
    frames_to_nchw,
    list_baselines,
    list_toolkit_engines,
    make_compiled,
    make_eager,
    nchw_to_frames,
)
from benchmarks.peers.cuda_baselines import list_cuda_baselines
from benchmarks.peers.networks import load_network
from benchmarks.peers.output_check import check_output
from benchmarks.peers.ratios import compute_speedups
from benchmarks.peers.table import format_tables
from runtime.errors import EngineError
from runtime.frame import Pixels
from tests.conftest import HAS_GPU, make_image, without_gpu
from train.checkpoint import publish
from train.models import Generator, create_generator, restore_frames

SIZE = (61, 45)
"""Width and height that are no multiple of what any generator needs."""


def frame(seed: int = 0) -> Pixels:
    return make_image(*SIZE, seed=seed)[np.newaxis]


def make_generator(name: str) -> Generator:
    """Return a generator that changes its input by some codes."""
    torch.manual_seed(0)
    generator = create_generator(name, **({"widths": (8,), "blocks": (1,)} if name == "edge" else {})).eval()
    if name == "edge":
        with torch.no_grad():
            generator.tail.weight.mul_(10)
    return generator


@pytest.fixture(scope="module", params=["edge", "two_stage_cnn"])
def small(request: pytest.FixtureRequest) -> Network:
    return Network(name=request.param, generator=make_generator(request.param), weights="random", engines={})


def test_every_baseline_has_the_output_of_the_generator(small: Network) -> None:
    blurred = [frame(seed) for seed in range(2)]
    expected = [make_eager(small.generator)(image) for image in blurred]
    for output, image in zip(expected, blurred, strict=True):
        assert np.array_equal(output, restore_frames(small.generator, torch.from_numpy(image)).numpy())
        assert np.abs(output.astype(int) - image).max() > 3, "otherwise doing nothing would pass the check"
    baselines = [way for way in list_baselines(small, size=SIZE, threads=2) if way.name != "torch.compile"]
    assert len(baselines) == 5
    for baseline in baselines:
        _, outcome = check_implementation(baseline, blurred, expected, [frame(8), frame(9)])
        assert outcome.not_available == ""
        assert outcome.check is not None
        assert outcome.check.is_accepted, (baseline.name, outcome.check)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_compile_has_the_output_of_the_generator() -> None:
    generator = make_generator("edge")
    assert np.abs(make_compiled(generator)(frame()).astype(int) - make_eager(generator)(frame())).max() <= 1


@pytest.mark.parametrize("name", ["edge", "two_stage_cnn"])
def test_conversion_to_nchw_and_back(name: str) -> None:
    generator = create_generator(name)
    planes = frames_to_nchw(frame(), generator)
    low, high = generator.pixel_range
    assert planes.dtype == np.float32
    assert planes.shape == (1, 3, *(-(-side // generator.multiple_of) * generator.multiple_of for side in SIZE[::-1]))
    first = 2 if generator.channel_order == "RGB" else 0
    assert planes[0, 0, 3, 5] == pytest.approx(frame()[0, 3, 5, first] / 255 * (high - low) + low)
    assert np.array_equal(nchw_to_frames(planes, generator, frame()), frame())
    assert nchw_to_frames(planes + 10, generator, frame()).min() == 255


def make_implementation(make: object, *, budget_db: float | None = None, **facts: str) -> Implementation:
    fields = {"name": "it", "network": "edge", "role": "peer", "precision": "float", "backend": "torch"} | facts
    return Implementation(make=make, budget_db=budget_db, **fields)  # type: ignore[arg-type]


def check_changed(change: object, *, budget_db: float | None) -> tuple[Restorer | None, str]:
    """Check an implementation whose output is the expected one with a change.

    Returns its restorer if it may be timed, and the reason if not.
    """
    blurred, expected = [frame(1), frame(2)], [frame(1) // 2 + 60, frame(2) // 2 + 60]
    outputs = {image.tobytes(): output for image, output in zip(blurred, expected, strict=True)}
    implementation = make_implementation(
        lambda: lambda image: change(outputs[image.tobytes()]),  # type: ignore[operator]
        budget_db=budget_db,
    )
    restore, outcome = check_implementation(implementation, blurred, expected, expected)
    return restore, outcome.check.rejection if outcome.check else outcome.not_available


def test_codes_that_are_rounded_differently_are_accepted() -> None:
    noise = np.random.default_rng(0).integers(0, 10, (1, *SIZE[::-1], 3)) == 0
    restore, rejection = check_changed(lambda output: output + noise.astype(np.uint8), budget_db=None)
    assert restore is not None
    assert rejection == ""


@pytest.mark.parametrize("budget_db", [None, 0.30])
@pytest.mark.parametrize(
    "change",
    [lambda output: output[..., ::-1], lambda output: np.roll(output, 1, axis=2), lambda output: 0 * output],
    ids=["swapped channels", "shifted", "black"],
)
def test_an_implementation_with_another_output_is_rejected(change: object, budget_db: float | None) -> None:
    restore, rejection = check_changed(change, budget_db=budget_db)
    assert restore is None
    assert rejection.startswith("another image: " if budget_db is None else "loses ")


@pytest.mark.parametrize("change", [lambda output: output[:, 1:], lambda output: output.astype(np.float32)])
def test_an_output_of_another_shape_or_type_is_rejected(change: object) -> None:
    restore, rejection = check_changed(change, budget_db=None)
    assert restore is None
    assert "expected uint8[1, 45, 61, 3]" in rejection


def test_a_budget_is_against_the_ground_truth_and_does_not_allow_doing_nothing() -> None:
    sharp = [frame(3)]
    worse = [sharp[0] // 2 + 60]
    same = check_output(lambda _: worse[0], [frame(4)], worse, sharp, budget_db=0.1)
    assert same.is_accepted
    assert same.loss_db == 0
    assert same.agreement_db == 99
    nearer = check_output(lambda _: sharp[0], [frame(4)], worse, sharp, budget_db=0.1)
    assert nearer.is_accepted
    assert nearer.loss_db < 0
    idle = check_output(lambda image: image, sharp, worse, sharp, budget_db=0.1)
    assert idle.loss_db < 0
    assert idle.rejection.startswith("no nearer to the output of PyTorch")


def test_a_sharp_frame_may_have_a_larger_rounding_error_than_change() -> None:
    blurred = [frame(1), frame(2) // 2]
    expected = [frame(1) ^ 1, frame(2) // 2 + 60]
    restored = iter([expected[0] ^ 2, expected[1]])
    check = check_output(lambda _: next(restored), blurred, expected, expected, budget_db=99.0)
    assert check.agreement_db < check.undone_db
    assert check.is_accepted


def test_an_implementation_that_cannot_run_is_not_available() -> None:
    def broken() -> Restorer:
        raise RuntimeError("no compiler\nmore")

    restore, outcome = check_implementation(make_implementation(broken), [frame()], [frame()], [frame()])
    assert restore is None
    assert outcome.check is None
    assert outcome.not_available == "no compiler"


@without_gpu
def test_gpu_baselines_are_not_available_without_a_gpu(small: Network) -> None:
    baselines = list_cuda_baselines(small, size=SIZE, threads=1)
    assert len(baselines) == 3
    for baseline in baselines:
        _, outcome = check_implementation(baseline, [frame()], [frame()], [frame()])
        assert outcome.not_available.startswith("no GPU")


@pytest.mark.gpu
def test_gpu_baselines_have_the_output_of_the_generator(small: Network) -> None:
    expected = make_eager(small.generator)(frame())
    for baseline in list_cuda_baselines(small, size=SIZE, threads=1):
        _, outcome = check_implementation(baseline, [frame()], [expected], [frame(9)])
        assert outcome.check is not None or outcome.not_available
        assert outcome.check is None or outcome.check.is_accepted, baseline.name


def timed(milliseconds: float, **facts: str) -> tuple[Implementation, np.ndarray]:
    jitter = np.random.default_rng(int(milliseconds)).normal(1, 0.01, (12, 4))
    return make_implementation(None, **facts), milliseconds * jitter


def test_named_speedups_compare_the_fastest_implementations() -> None:
    network = {"network": "two_stage_cnn"}
    ours = network | {"role": "toolkit"}
    speedups = compute_speedups(
        [
            timed(1000, **network, name="eager"),
            timed(600, **network, name="plain", backend="ONNX Runtime"),
            timed(400, **network, name="half", backend="OpenVINO", precision="reduced"),
            timed(1, **network, name="gpu", backend="CUDA"),
            timed(300, **ours, name="float a", backend="ONNX Runtime"),
            timed(200, **ours, name="float b", backend="OpenVINO"),
            timed(100, **ours, name="int8", backend="OpenVINO", precision="int8"),
            timed(10, role="toolkit", name="edge int8", precision="int8", backend="OpenVINO"),
        ]
    )
    expected = {
        "collapsed_vs_plain_ort": 2,
        "int8_vs_fp32_best_cpu": 2,
        "edge_int8_vs_fastest_plain_two_stage": 40,
        "edge_int8_vs_fastest_plain_two_stage_float32": 60,
        "toolkit_best_vs_best_peer": 4,
        "toolkit_best_vs_best_peer_float32": 6,
    }
    assert {name: speedup["ratio"] for name, speedup in speedups.items()} == pytest.approx(expected, rel=0.02)
    assert all(speedup["low"] <= speedup["ratio"] <= speedup["high"] for speedup in speedups.values())
    assert speedups["toolkit_best_vs_best_peer"]["slower"] == "two_stage_cnn, half"
    assert speedups["toolkit_best_vs_best_peer"]["faster"] == "two_stage_cnn, int8", "edge is another network"


def test_speedups_of_what_was_not_timed_are_not_available() -> None:
    speedups = compute_speedups([timed(10), timed(5, role="toolkit", precision="int8")])
    assert "ratio" in speedups["toolkit_best_vs_best_peer"]
    assert "not_available" in speedups["collapsed_vs_plain_ort"]
    assert "not_available" in speedups["edge_int8_vs_fastest_plain_two_stage"]


def test_rounds_fill_the_time_and_are_enough_for_a_verdict() -> None:
    assert plan_rounds([0.01, 0.02], 10) == ([BLOCK, BLOCK], round(10 / (0.03 * (BLOCK + 1) + 0.06)))
    assert plan_rounds([3.0, 0.02], 10) == ([1, BLOCK], 10)


def test_threads_of_torch_are_set_and_restored() -> None:
    with limit_torch_threads(3):
        with limit_torch_threads(2):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 3


@pytest.fixture(scope="module")
def bundled() -> Network:
    return load_network("edge", checkpoint=None)


def test_a_run_times_accepted_implementations_and_matches_the_schema(
    bundled: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_with_wrong_output(network: Network, **options: object) -> list[Implementation]:
        every = list_implementations(network, **options)  # type: ignore[arg-type]
        kept = [implementation for implementation in every if implementation.name != "torch.compile"]
        eager = make_eager(network.generator)
        swapped = make_implementation(lambda: lambda image: eager(image)[..., ::-1], name="swapped")
        return kept if options["int8_only"] else [*kept, swapped]

    monkeypatch.setattr(command, "list_implementations", list_with_wrong_output)
    # In smaller frames of the clip too little is blurred: the network returns them as they are.
    results = measure([bundled], size=(320, 180), threads=2, duration_s=0.1)
    status = {entry["name"]: entry["status"] for entry in results["contenders"]}
    assert status.pop("swapped") == "refused"
    on_gpu = {name: status.pop(name) for name in list(status) if any(word in name for word in ("CUDA", "trtexec"))}
    assert len(on_gpu) == 3
    assert HAS_GPU or set(on_gpu.values()) == {"not available"}
    assert set(status.values()) == {"timed"}
    assert {"int8_cpu, ONNX Runtime", "int8_cpu, OpenVINO", "fp32, ONNX Runtime", "torch eager"} <= status.keys()
    assert (
        0
        < results["numpy_ms"]
        < min(
            entry["host"]["p50_ms"]
            for entry in results["contenders"]
            if entry["name"].startswith("plain export") and entry["host"]
        )
    )
    assert results["ratios"]["toolkit_best_vs_best_peer"]["rounds"] == results["turns"]["rounds"] >= 10
    write_results(tmp_path / "a.json", kind="peers", results=results, command="python -m benchmarks.peers")
    assert read_results(tmp_path / "a.json")["results"] == json.loads(json.dumps(results))
    page = format_tables(results)
    assert "| edge | swapped | " in page
    assert "rejected: another image" in page
    assert "| fastest engine of the toolkit over the fastest baseline | " in page


def test_only_the_int8_engines_of_the_second_network_are_listed(bundled: Network) -> None:
    engines = list_implementations(bundled, size=SIZE, threads=1, int8_only=True)
    assert [engine.name for engine in engines] == ["int8_cpu, ONNX Runtime", "int8_cpu, OpenVINO"]
    assert [engine.budget_db for engine in engines] == [0.3, 0.3]
    every = [engine.name for engine in list_toolkit_engines(bundled, threads=1)]
    assert every[:2] == ["fp32, ONNX Runtime", "fp32, OpenVINO"]


def test_a_network_without_engines_is_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def export(arguments: list[str]) -> int:
        calls.append(arguments)
        return 4 if len(calls) > 1 else 0

    monkeypatch.setattr(networks, "export", export)
    exported = load_network("two_stage_cnn", checkpoint=None, work=tmp_path)
    assert exported.weights == "random, seed 0"
    assert calls[0][0] == str(tmp_path / "two_stage_cnn-random")
    weights = (tmp_path / "two_stage_cnn-random" / "generator.safetensors").read_bytes()
    with pytest.raises(EngineError, match="could not be exported"):
        load_network("two_stage_cnn", checkpoint=None, work=tmp_path)
    assert (tmp_path / "two_stage_cnn-random" / "generator.safetensors").read_bytes() == weights


def test_unsuitable_checkpoints_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--generator", "edge", "--checkpoint", str(tmp_path)]) == 4
    publish(
        make_generator("edge"), json.dumps({"generator": "edge", "options": {"widths": (8,), "blocks": (1,)}}), tmp_path
    )
    assert main(["--generator", "two_stage_cnn", "--checkpoint", str(tmp_path)]) == 4
    assert "this run is of edge, not of two_stage_cnn" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ending:
        main(["--duration", "0"])
    assert ending.value.code == 2


def test_the_command_exports_a_checkpoint_and_measures_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    publish(
        make_generator("edge"), json.dumps({"generator": "edge", "options": {"widths": (8,), "blocks": (1,)}}), folder
    )
    arguments = ["--generator", "edge", "--checkpoint", str(folder), "--work", str(tmp_path / "work")]
    command = [*arguments, "--size", "64x48", "--duration", "0.1", "--json", str(tmp_path / "a.json")]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Frames of 64x48"), "the report of the export goes to standard error"
    values = read_results(tmp_path / "a.json")
    assert values["results"]["networks"] == [{"name": "edge", "weights": "mine"}]
    assert str(tmp_path) not in (tmp_path / "a.json").read_text()
    assert "ratio" in values["results"]["ratios"]["int8_vs_fp32_best_cpu"]
