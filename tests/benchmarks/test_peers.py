"""Contenders give the same picture or are not timed; ratios are those of the right ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.harness.results import read_results, write_results
from benchmarks.harness.scenarios import BLOCK
from benchmarks.peers import baselines as contenders
from benchmarks.peers import cuda_baselines as cuda_peers
from benchmarks.peers import networks
from benchmarks.peers.__main__ import contenders as contenders_of
from benchmarks.peers.__main__ import cpu_threads, main, plan, run, tried
from benchmarks.peers.baselines import Contender, Network, Restorer, eager, frames_of, peers, planes_of, toolkit
from benchmarks.peers.networks import network
from benchmarks.peers.output_check import checked
from benchmarks.peers.ratios import named_ratios
from benchmarks.peers.table import tables
from runtime.errors import EngineError
from runtime.frame import Pixels
from tests.conftest import HAS_GPU, picture, without_gpu
from train.checkpoint import publish
from train.models import Generator, create_generator, restore

SIZE = (61, 45)
"""No multiple of anything."""


def frame(seed: int = 0) -> Pixels:
    return picture(*SIZE, seed=seed)[np.newaxis]


def trained(name: str) -> Generator:
    """A network that changes its input by some codes."""
    torch.manual_seed(0)
    generator = create_generator(name, **({"widths": (8,), "blocks": (1,)} if name == "edge" else {})).eval()
    if name == "edge":
        with torch.no_grad():
            generator.tail.weight.mul_(10)
    return generator


@pytest.fixture(scope="module", params=["edge", "two_stage_cnn"])
def small(request: pytest.FixtureRequest) -> Network:
    return Network(name=request.param, generator=trained(request.param), weights="random", engines={})


def test_every_peer_gives_what_the_generator_gives(small: Network) -> None:
    blurred = [frame(seed) for seed in range(2)]
    expected = [eager(small.generator)(each) for each in blurred]
    for given, each in zip(expected, blurred, strict=True):
        assert np.array_equal(given, restore(small.generator, torch.from_numpy(each)).numpy())
        assert np.abs(given.astype(int) - each).max() > 3, "doing nothing would pass"
    ways = [each for each in peers(small, size=SIZE, threads=2) if each.name != "torch.compile"]
    assert len(ways) == 5
    for contender in ways:
        _, outcome = tried(contender, blurred, expected, [frame(8), frame(9)])
        assert outcome.not_available == ""
        assert outcome.check is not None
        assert outcome.check.passed, (contender.name, outcome.check)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torch_compile_gives_it_too() -> None:
    generator = trained("edge")
    assert np.abs(contenders.compiled(generator)(frame()).astype(int) - eager(generator)(frame())).max() <= 1


@pytest.mark.parametrize("name", ["edge", "two_stage_cnn"])
def test_bytes_to_planes_and_back(name: str) -> None:
    generator = create_generator(name)
    planes = planes_of(frame(), generator)
    low, high = generator.pixel_range
    assert planes.dtype == np.float32
    assert planes.shape == (1, 3, *(-(-side // generator.multiple_of) * generator.multiple_of for side in SIZE[::-1]))
    first = 2 if generator.channel_order == "RGB" else 0
    assert planes[0, 0, 3, 5] == pytest.approx(frame()[0, 3, 5, first] / 255 * (high - low) + low)
    assert np.array_equal(frames_of(planes, generator, frame()), frame())
    assert frames_of(planes + 10, generator, frame()).min() == 255


def contender(make: object, *, budget_db: float | None = None, **facts: str) -> Contender:
    told = {"name": "it", "network": "edge", "role": "peer", "precision": "float", "backend": "torch"} | facts
    return Contender(make=make, budget_db=budget_db, **told)  # type: ignore[arg-type]


def judged(change: object, *, budget_db: float | None) -> tuple[Restorer | None, str]:
    """What becomes of a contender whose pictures are the right ones, changed; its restorer if it may be timed."""
    blurred, expected = [frame(1), frame(2)], [frame(1) // 2 + 60, frame(2) // 2 + 60]
    right = {each.tobytes(): result for each, result in zip(blurred, expected, strict=True)}
    made = contender(lambda: lambda each: change(right[each.tobytes()]), budget_db=budget_db)  # type: ignore[operator]
    restore, outcome = tried(made, blurred, expected, expected)
    return restore, outcome.check.complaint if outcome.check else outcome.not_available


def test_codes_rounded_otherwise_are_no_other_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 10, (1, *SIZE[::-1], 3)) == 0
    restore, complaint = judged(lambda right: right + noise.astype(np.uint8), budget_db=None)
    assert restore is not None
    assert complaint == ""


@pytest.mark.parametrize("budget_db", [None, 0.30])
@pytest.mark.parametrize(
    "change",
    [lambda right: right[..., ::-1], lambda right: np.roll(right, 1, axis=2), lambda right: 0 * right],
    ids=["swapped channels", "shifted", "black"],
)
def test_a_contender_with_another_picture_is_refused(change: object, budget_db: float | None) -> None:
    restore, complaint = judged(change, budget_db=budget_db)
    assert restore is None
    assert complaint.startswith("another picture: " if budget_db is None else "loses ")


@pytest.mark.parametrize("change", [lambda right: right[:, 1:], lambda right: right.astype(np.float32)])
def test_a_contender_of_another_contract_is_not_timed(change: object) -> None:
    restore, complaint = judged(change, budget_db=None)
    assert restore is None
    assert "expected uint8[1, 45, 61, 3]" in complaint


def test_a_budget_is_against_the_truth_and_does_not_excuse_doing_nothing() -> None:
    truth = [frame(3)]
    worse = [truth[0] // 2 + 60]
    same = checked(lambda _: worse[0], [frame(4)], worse, truth, budget_db=0.1)
    assert same.passed
    assert same.loss_db == 0
    assert same.agreement_db == 99
    nearer = checked(lambda _: truth[0], [frame(4)], worse, truth, budget_db=0.1)
    assert nearer.passed
    assert nearer.loss_db < 0
    idle = checked(lambda each: each, truth, worse, truth, budget_db=0.1)
    assert idle.loss_db < 0
    assert idle.complaint.startswith("no nearer to PyTorch's picture")


def test_a_frame_that_was_sharp_may_be_rounded_further_than_it_is_changed() -> None:
    blurred = [frame(1), frame(2) // 2]
    expected = [frame(1) ^ 1, frame(2) // 2 + 60]
    restored = iter([expected[0] ^ 2, expected[1]])
    check = checked(lambda _: next(restored), blurred, expected, expected, budget_db=99.0)
    assert check.agreement_db < check.undone_db
    assert check.passed


def test_what_cannot_run_is_listed_and_the_others_go_on() -> None:
    def broken() -> Restorer:
        raise RuntimeError("no compiler\nmore")

    restore, outcome = tried(contender(broken), [frame()], [frame()], [frame()])
    assert restore is None
    assert outcome.check is None
    assert outcome.not_available == "no compiler"


@without_gpu
def test_gpu_peers_say_that_there_is_none(small: Network) -> None:
    found = cuda_peers.cuda_peers(small, size=SIZE, threads=1)
    assert len(found) == 3
    for each in found:
        _, outcome = tried(each, [frame()], [frame()], [frame()])
        assert outcome.not_available.startswith("no GPU")


@pytest.mark.gpu
def test_gpu_peers_give_what_the_generator_gives(small: Network) -> None:
    expected = eager(small.generator)(frame())
    for each in cuda_peers.cuda_peers(small, size=SIZE, threads=1):
        _, outcome = tried(each, [frame()], [expected], [frame(9)])
        assert outcome.check is not None or outcome.not_available
        assert outcome.check is None or outcome.check.passed, each.name


def timed(milliseconds: float, **facts: str) -> tuple[Contender, np.ndarray]:
    jitter = np.random.default_rng(int(milliseconds)).normal(1, 0.01, (12, 4))
    return contender(None, **facts), milliseconds * jitter


def test_named_ratios_are_of_the_fastest_that_are_meant() -> None:
    network = {"network": "two_stage_cnn"}
    ours = network | {"role": "toolkit"}
    found = named_ratios(
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
    assert {name: each["ratio"] for name, each in found.items()} == pytest.approx(expected, rel=0.02)
    assert all(each["low"] <= each["ratio"] <= each["high"] for each in found.values())
    assert found["toolkit_best_vs_best_peer"]["slower"] == "two_stage_cnn, half"
    assert found["toolkit_best_vs_best_peer"]["faster"] == "two_stage_cnn, int8", "edge is another network"


def test_ratios_of_what_was_not_timed_say_so() -> None:
    found = named_ratios([timed(10), timed(5, role="toolkit", precision="int8")])
    assert "ratio" in found["toolkit_best_vs_best_peer"]
    assert "not_available" in found["collapsed_vs_plain_ort"]
    assert "not_available" in found["edge_int8_vs_fastest_plain_two_stage"]


def test_rounds_fill_the_time_but_suffice_for_a_verdict() -> None:
    assert plan([0.01, 0.02], 10) == ([BLOCK, BLOCK], round(10 / (0.03 * (BLOCK + 1) + 0.06)))
    assert plan([3.0, 0.02], 10) == ([1, BLOCK], 10)


def test_threads_of_torch_are_set_and_given_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


@pytest.fixture(scope="module")
def bundled() -> Network:
    return network("edge", checkpoint=None)


def test_a_run_times_what_passes_and_fits_the_schema(
    bundled: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shortened(each: Network, **options: object) -> list[Contender]:
        kept = [way for way in contenders_of(each, **options) if way.name != "torch.compile"]  # type: ignore[arg-type]
        swapped = contender(lambda: lambda taken: eager(each.generator)(taken)[..., ::-1], name="swapped")
        return [*kept, swapped] if options["all_of_them"] else kept

    monkeypatch.setattr("benchmarks.peers.__main__.contenders", shortened)
    results = run([bundled], size=(64, 48), threads=2, duration_s=0.1)
    status = {each["name"]: each["status"] for each in results["contenders"]}
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
            each["host"]["p50_ms"]
            for each in results["contenders"]
            if each["name"].startswith("plain export") and each["host"]
        )
    )
    assert results["ratios"]["toolkit_best_vs_best_peer"]["rounds"] == results["turns"]["rounds"] >= 10
    write_results(tmp_path / "a.json", kind="peers", results=results, command="python -m benchmarks.peers")
    assert read_results(tmp_path / "a.json")["results"] == json.loads(json.dumps(results))
    shown = tables(results)
    assert "| edge | swapped | " in shown
    assert "refused: another picture" in shown
    assert "| toolkit_best_vs_best_peer | " in shown


def test_of_the_other_network_only_the_int8_engines_are_taken(bundled: Network) -> None:
    found = contenders_of(bundled, size=SIZE, threads=1, all_of_them=False)
    assert [each.name for each in found] == ["int8_cpu, ONNX Runtime", "int8_cpu, OpenVINO"]
    assert [each.budget_db for each in found] == [0.3, 0.3]
    assert [each.name for each in toolkit(bundled, threads=1)][:2] == ["fp32, ONNX Runtime", "fp32, OpenVINO"]


def test_a_network_without_engines_is_exported_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def export(arguments: list[str]) -> int:
        calls.append(arguments)
        return 4 if len(calls) > 1 else 0

    monkeypatch.setattr(networks, "export", export)
    found = network("two_stage_cnn", checkpoint=None, work=tmp_path)
    assert found.weights == "random, seed 0"
    assert calls[0][0] == str(tmp_path / "two_stage_cnn-random")
    weights = (tmp_path / "two_stage_cnn-random" / "generator.safetensors").read_bytes()
    with pytest.raises(EngineError, match="could not be exported"):
        network("two_stage_cnn", checkpoint=None, work=tmp_path)
    assert (tmp_path / "two_stage_cnn-random" / "generator.safetensors").read_bytes() == weights


def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--generator", "edge", "--checkpoint", str(tmp_path)]) == 4
    publish(trained("edge"), json.dumps({"generator": "edge", "options": {"widths": (8,), "blocks": (1,)}}), tmp_path)
    assert main(["--generator", "two_stage_cnn", "--checkpoint", str(tmp_path)]) == 4
    assert "this run is of edge, not of two_stage_cnn" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ending:
        main(["--duration", "0"])
    assert ending.value.code == 2


def test_the_command_exports_a_checkpoint_and_measures_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    publish(trained("edge"), json.dumps({"generator": "edge", "options": {"widths": (8,), "blocks": (1,)}}), folder)
    arguments = ["--generator", "edge", "--checkpoint", str(folder), "--work", str(tmp_path / "work")]
    command = [*arguments, "--size", "64x48", "--duration", "0.1", "--json", str(tmp_path / "a.json")]
    assert main(command) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("64x48, milliseconds"), "the export's report goes elsewhere"
    values = read_results(tmp_path / "a.json")
    assert values["results"]["networks"] == [{"name": "edge", "weights": "mine"}]
    assert str(tmp_path) not in (tmp_path / "a.json").read_text()
    assert "ratio" in values["results"]["ratios"]["int8_vs_fp32_best_cpu"]
