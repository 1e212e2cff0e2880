"""FP16 and INT8 graphs, calibration frames, and the search for layers that must stay in float."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from export.graph.fuse import collapsed
from export.quantization import calibration
from export.quantization.calibration import chosen, ranges, read_frames, traits
from export.quantization.precision import convolutions, fp16, int8, prepared
from export.quantization.sensitivity import fitted, losses_db
from export.step_cache import Steps, digest, folder_digest
from export.torch_to_onnx import onnx_from_generator
from runtime.errors import InputError, UsageError
from tests.conftest import ROOT, picture, write_clip
from tests.export.test_fuse import kinds, run
from train.models import create_generator
from train.models.base import patches

CALIBRATION = ROOT / "calib_data" / "calibration"


@pytest.fixture(scope="module")
def core() -> onnx.ModelProto:
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(16,), blocks=(3,))
    with torch.no_grad():
        generator.tail.weight.mul_(8)
    return prepared(collapsed(onnx_from_generator(generator)))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """As the core sees them."""
    read = [frame[:192, :192] for frame in read_frames(CALIBRATION)[:8]]
    return [patches(torch.from_numpy(frame.transpose(2, 0, 1)[None]).float() / 255, 4).numpy() for frame in read]


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((first - second) ** 2)))


def test_fp16_computes_in_half_and_adds_the_true_input(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    half = fp16(core, frames)
    kernels = {t.name: t.data_type for t in half.graph.initializer}
    weights = [kernels[node.input[1]] for node in half.graph.node if node.op_type == "Conv"]
    assert set(weights) == {onnx.TensorProto.FLOAT16}
    assert psnr_db(run(half, frames[0]), run(core, frames[0])) > 60
    last = next(node for node in half.graph.node if "core_output" in node.output)
    assert (last.op_type, "core_input" in last.input) == ("Add", True)


def test_what_overflows_half_precision_stays_in_float(frames: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(16,), blocks=(3,))
    with torch.no_grad():  # values beyond 65,504 inside, ordinary ones at the end
        generator.body.before[1].conv1.weight.mul_(1e6)
        generator.body.before[1].conv2.weight.mul_(1e-6)
    loud = prepared(collapsed(onnx_from_generator(generator)))
    half = fp16(loud, frames)
    expected, got = run(loud, frames[0]), run(half, frames[0])
    assert np.isfinite(got).all()
    assert psnr_db(got, expected) > 60
    kernels = {t.name: t.data_type for t in half.graph.initializer}
    assert Counter(kernels[n.input[1]] for n in half.graph.node if n.op_type == "Conv")[onnx.TensorProto.FLOAT16] >= 4


@pytest.mark.parametrize("layout", ["int8", "int8_cpu"])
@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_int8_is_near_and_its_ends_are_float(
    layout: str, method: str, core: onnx.ModelProto, frames: list[np.ndarray]
) -> None:
    model = int8(core, ranges(core, frames, method), layout, quantised=convolutions(core))
    assert psnr_db(run(model, frames[0]), run(core, frames[0])) > 35
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    quantised = [makers.get(node.input[1]) == "DequantizeLinear" for node in convs]
    assert quantised == [False, *[True] * (len(convs) - 2), False]
    kinds_of_zero = {t.name: t.data_type for t in model.graph.initializer if "zero_point" in t.name}
    expected = {onnx.TensorProto.INT8} if layout == "int8" else {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert set(kinds_of_zero.values()) - {onnx.TensorProto.INT32} == expected
    if layout == "int8":  # TensorRT refuses other zero points than zero, and quantised biases
        assert all(not onnx.numpy_helper.to_array(t).any() for t in model.graph.initializer if "zero_point" in t.name)
        assert all(makers.get(node.input[2]) != "DequantizeLinear" for node in convs)


def test_only_the_layers_asked_for_are_quantised(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    found, names = ranges(core, frames, "minmax"), convolutions(core)
    one = int8(core, found, "int8", quantised=names[1:2])
    # an input, and the weights, are quantised; nothing else
    assert kinds(one)["QuantizeLinear"] == 2
    assert int8(core, found, "int8", quantised=[]) is core


def test_no_two_neighbouring_products_pass_16_bits(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    """Without VNNI an x86 CPU adds them in 16 bits, and cuts off what passes (`vpmaddubsw`)."""

    def furthest(weight: np.ndarray) -> float:
        """What two neighbouring input channels, both 255, add up to at the most, either way."""
        pairs = np.moveaxis(weight.astype(int), 1, -1).reshape(-1, 2)
        return 255 * max(pairs.clip(0).sum(1).max(), -pairs.clip(None, 0).sum(1).min())

    names = convolutions(core, whole=True)
    model = int8(core, ranges(core, frames, "minmax"), "int8_cpu", quantised=names, pixel_range=(0, 1))
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    ours = [weight for weight in weights.values() if weight.dtype == np.int8 and weight.ndim == 4]
    assert len(ours) == len(names)
    assert all(furthest(weight) <= 32767 for weight in ours)
    floats = [onnx.numpy_helper.to_array(t) for t in core.graph.initializer if len(t.dims) == 4]
    plain = [np.rint(weight * 127 / np.abs(weight).max((1, 2, 3), keepdims=True)) for weight in floats]
    assert max(map(furthest, plain)) > 32767


def test_a_wrong_scale_is_far_off(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    found = {name: (low / 50, high / 50) for name, (low, high) in ranges(core, frames, "minmax").items()}
    model = int8(core, found, "int8", quantised=convolutions(core))
    assert psnr_db(run(model, frames[0]), run(core, frames[0])) < 30


def test_layers_go_back_to_float_costliest_first_until_the_budget_holds() -> None:
    """A model is its own set of layers here; each layer costs what `price` says, and costs add up."""
    price = {"a": 0.05, "b": 0.40, "c": -0.01, "d": 0.20}

    def build(layers: frozenset[str]) -> frozenset[str]:
        return layers

    def measure(layers: frozenset[str]) -> float:
        return sum(price[layer] for layer in layers)

    costs = losses_db(list(price), build, measure)
    assert list(costs) == ["b", "d", "a", "c"]
    assert fitted(costs, build, measure, budget_db=1.0).quantised == set(price)
    assert fitted(costs, build, measure, budget_db=0.3).quantised == {"a", "c", "d"}
    assert fitted(costs, build, measure, budget_db=0.05).quantised == {"a", "c"}
    assert fitted(costs, build, lambda _: 9.0, budget_db=0.05).quantised == frozenset()


def test_calibration_frames_cover_what_there_is() -> None:
    """Of 100 frames of which 95 are alike, the five others are taken: the first N would miss them."""
    alike = [picture(64, 48, seed=0) // 2 + shift // 30 for shift in range(95)]
    rng = np.random.default_rng(0)
    odd = [np.full((48, 64, 3), 250, np.uint8), np.zeros((48, 64, 3), np.uint8)]
    odd += [cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), sigma) for sigma in (0.8, 2, 4)]
    taken = {id(frame) for frame in chosen(alike + odd, 8)}
    assert {id(frame) for frame in odd} <= taken
    assert len(taken) == 8
    assert chosen(odd, 8) == odd


def test_traits_tell_sharp_from_blurred_and_dark_from_bright() -> None:
    sharp = read_frames(CALIBRATION)[0]
    assert traits(cv2.GaussianBlur(sharp, (0, 0), 3))[0] < traits(sharp)[0] - 1
    assert traits(sharp // 2)[1] < traits(sharp)[1]


def test_of_a_long_video_the_end_counts_as_much_as_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_READ", 10)
    for count in (3, 10, 11, 95):
        kept = calibration._spread(iter(range(count)))
        assert len(kept) <= 10
        assert kept[0] == 0
        assert len(set(np.diff(kept))) == 1
        assert kept[-1] + np.diff(kept)[0] >= count


def test_frames_are_read_from_videos_too(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", size=(320, 280))
    frames = read_frames(tmp_path / "clip.mp4")
    assert (len(frames), frames[0].shape) == (10, (256, 256, 3))


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda seed: picture(64, 48, seed=0), UsageError, "12 frames to calibrate with, 1 of them different"),
        (
            lambda seed: np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8),
            UsageError,
            "look like random numbers",
        ),
        (None, InputError, "no pictures found"),
    ],
)
def test_frames_that_teach_nothing_are_refused(
    make: object, error: type[Exception], words: str, tmp_path: Path
) -> None:
    for seed in range(12 if make else 0):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), make(seed))
    with pytest.raises(error, match=words):
        read_frames(tmp_path)


def test_the_shipped_frames_are_those_of_the_manifest() -> None:
    import hashlib
    import json

    entries = json.loads((ROOT / "calib_data" / "manifest.json").read_text())
    files = {path.relative_to(ROOT / "calib_data").as_posix() for path in (ROOT / "calib_data").rglob("*.jpg")}
    assert {entry["file"] for entry in entries} == files
    for entry in entries:
        content = (ROOT / "calib_data" / entry["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert entry["licence"]
    assert len(read_frames(CALIBRATION)) == 21


def test_a_step_is_done_once_for_the_same_inputs(tmp_path: Path) -> None:
    steps = Steps(tmp_path, base="1")
    assert steps("double", {"of": 2}, lambda: b"4") == b"4"
    assert Steps(tmp_path, base="1")("double", {"of": 2}, lambda: b"wrong") == b"4"
    assert Steps(tmp_path, base="2")("double", {"of": 2}, lambda: b"new code") == b"new code"
    third = Steps(tmp_path, base="1")
    assert third("double", {"of": 3}, lambda: b"6") == b"6"
    assert third.made == ["double"]
    third.sweep()
    assert len(list(tmp_path.iterdir())) == 1
    assert digest("ab", "c") != digest("a", "bc")
    assert folder_digest(tmp_path) != folder_digest(ROOT / "calib_data")
