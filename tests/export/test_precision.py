"""FP16 and INT8 cores, calibration frames, and the search for layers that must stay in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from export.graph.fuse import fuse_convolutions
from export.quantization import calibration
from export.quantization.calibration import calibrate_ranges, measure_traits, read_frames, select_frames
from export.quantization.int8 import quantize_int8
from export.quantization.precision import convert_to_fp16, list_convolutions, prepare_for_quantization
from export.quantization.sensitivity import measure_layer_losses, quantize_within_budget
from export.step_cache import StepCache, compute_digest, compute_folder_digest
from export.torch_to_onnx import export_to_onnx
from runtime.errors import InputError, UsageError
from tests.conftest import ROOT, make_image, write_clip
from tests.export.test_fuse import kinds, run
from train.models import create_generator
from train.models.base import patches_from_pixels

CALIBRATION = ROOT / "calib_data" / "calibration"


@pytest.fixture(scope="module")
def core() -> onnx.ModelProto:
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(16,), blocks=(3,))
    with torch.no_grad():
        generator.tail.weight.mul_(8)
    return prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Calibration frames as inputs of the core."""
    crops = [frame[:192, :192] for frame in read_frames(CALIBRATION)[:8]]
    return [
        patches_from_pixels(torch.from_numpy(frame.transpose(2, 0, 1)[None]).float() / 255, 4).numpy()
        for frame in crops
    ]


def psnr_db(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((first - second) ** 2)))


def test_fp16_computes_in_half_precision_and_adds_the_exact_input(
    core: onnx.ModelProto, frames: list[np.ndarray]
) -> None:
    half = convert_to_fp16(core, frames)
    kernels = {t.name: t.data_type for t in half.graph.initializer}
    weights = [kernels[node.input[1]] for node in half.graph.node if node.op_type == "Conv"]
    assert set(weights) == {onnx.TensorProto.FLOAT16}
    assert psnr_db(run(half, frames[0]), run(core, frames[0])) > 60
    last = next(node for node in half.graph.node if "core_output" in node.output)
    assert (last.op_type, "core_input" in last.input) == ("Add", True)


def test_layers_that_overflow_half_precision_stay_in_float(frames: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(16,), blocks=(3,))
    with torch.no_grad():  # values beyond 65,504 inside, ordinary ones at the end
        generator.body.before[1].conv1.weight.mul_(1e6)
        generator.body.before[1].conv2.weight.mul_(1e-6)
    overflowing = prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))
    half = convert_to_fp16(overflowing, frames)
    expected, actual = run(overflowing, frames[0]), run(half, frames[0])
    assert np.isfinite(actual).all()
    assert psnr_db(actual, expected) > 60
    kernels = {t.name: t.data_type for t in half.graph.initializer}
    assert Counter(kernels[n.input[1]] for n in half.graph.node if n.op_type == "Conv")[onnx.TensorProto.FLOAT16] >= 4


def test_entropy_calibrates_with_the_widest_input_first(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    """The first input gives the histograms the width of their bins; many narrow bins would take minutes."""
    inputs = [0.001 * frames[0], 0.5 * frames[1], frames[2], 0.1 * frames[3]]
    ordered = calibration._put_widest_first(core, inputs)
    assert ordered[0] is inputs[2]
    assert [id(each) for each in ordered[1:]] == [id(inputs[index]) for index in (0, 1, 3)]


@pytest.mark.parametrize("layout", ["int8", "int8_cpu"])
@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_int8_is_close_to_float_and_its_ends_are_float(
    layout: str, method: str, core: onnx.ModelProto, frames: list[np.ndarray]
) -> None:
    source = convert_to_fp16(core, frames, half_residual=True) if layout == "int8" else core
    model = quantize_int8(source, calibrate_ranges(core, frames, method), layout, layers=list_convolutions(core))
    assert psnr_db(run(model, frames[0]), run(core, frames[0])) > 35
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    producers = {output: node.op_type for node in model.graph.node for output in node.output}
    is_quantized = [producers.get(node.input[1]) == "DequantizeLinear" for node in convs]
    assert is_quantized == [False, *[True] * (len(convs) - 2), False]
    zero_point_types = {t.name: t.data_type for t in model.graph.initializer if "zero_point" in t.name}
    expected = {onnx.TensorProto.INT8} if layout == "int8" else {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert set(zero_point_types.values()) - {onnx.TensorProto.INT32} == expected
    if layout == "int8":  # TensorRT accepts only zero as a zero point, and no quantised biases
        assert all(not onnx.numpy_helper.to_array(t).any() for t in model.graph.initializer if "zero_point" in t.name)
        assert all(producers.get(node.input[2]) != "DequantizeLinear" for node in convs)


def test_a_pass_at_half_the_resolution_has_ends_of_its_own() -> None:
    generator = create_generator("edge", widths=(8, 16), blocks=(1, 1), half_pass=True).eval()
    core = prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))
    shapes = {tensor.name: tuple(tensor.dims) for tensor in core.graph.initializer}
    names = set(list_convolutions(core))
    kernels = [shapes[node.input[1]] for node in core.graph.node if node.op_type == "Conv" and node.name not in names]
    reading, writing = [(8, 48, 3, 3), (48, 48, 2, 2)], [(48, 8, 3, 3), (48, 12, 3, 3)]
    assert sorted(kernels) == sorted([*reading, *writing])
    assert len(list_convolutions(core, include_ends=True)) == len(names) + 4


@pytest.mark.parametrize("half_residual", [True, False])
def test_int8_for_tensorrt_has_half_precision_between_convolutions(
    half_residual: bool, core: onnx.ModelProto, frames: list[np.ndarray]
) -> None:
    half = convert_to_fp16(core, frames, half_residual=half_residual)
    ranges, layers = calibrate_ranges(core, frames, "minmax"), list_convolutions(core)
    model = quantize_int8(half, ranges, "int8", layers=layers, per_channel=False)
    typed = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    float32 = {v.name for v in typed.value_info if v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    producers = {output: node for node in model.graph.node for output in node.output}
    assert {producers[name].op_type for name in float32} == (set() if half_residual else {"Cast"})
    last = next(node for node in model.graph.node if "core_output" in node.output)
    assert last.op_type == ("Cast" if half_residual else "Add")
    scales = [t for t in model.graph.initializer if t.name.endswith("_scale")]
    assert len(scales) == 2 * len(layers)
    assert {(t.data_type, *t.dims) for t in scales} == {(onnx.TensorProto.FLOAT16,)}  # one scale for each tensor
    assert [entry.version for entry in model.opset_import if not entry.domain] == [19]  # TensorRT 10.3 reads 20
    assert [entry.version for entry in half.opset_import if not entry.domain] == [18]


def test_a_layer_beyond_half_precision_is_quantized_in_float(frames: list[np.ndarray]) -> None:
    torch.manual_seed(0)
    generator = create_generator("edge", widths=(16,), blocks=(3,))
    with torch.no_grad():
        generator.body.before[1].conv1.weight.mul_(1e6)
        generator.body.before[1].conv2.weight.mul_(1e-6)
    core = prepare_for_quantization(fuse_convolutions(export_to_onnx(generator)))
    half = convert_to_fp16(core, frames, half_residual=True)
    model = quantize_int8(half, calibrate_ranges(core, frames, "minmax"), "int8", layers=list_convolutions(core))
    assert psnr_db(run(model, frames[0]), run(core, frames[0])) > 35
    types = {t.data_type for t in model.graph.initializer if t.name.endswith("_scale")}
    assert types == {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}


def test_channels_with_tiny_weights_keep_them(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    """A scale below 6e-5 is not a normal half-precision number."""
    tiny = onnx.ModelProto()
    tiny.CopyFrom(core)
    convolutions = [node for node in tiny.graph.node if node.op_type == "Conv"]
    constants = {t.name: t for t in tiny.graph.initializer}
    for node, factor in ((convolutions[1], 1 / 1024), (convolutions[2], 1024)):
        for name in node.input[1 : 2 + (factor < 1)]:
            values = onnx.numpy_helper.to_array(constants[name]) * np.float32(factor)
            constants[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    ranges = calibrate_ranges(tiny, frames, "minmax")
    model = quantize_int8(convert_to_fp16(tiny, frames), ranges, "int8", layers=list_convolutions(tiny))
    assert psnr_db(run(model, frames[0]), run(core, frames[0])) > 35


def test_only_the_given_layers_are_quantized(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    ranges, names = calibrate_ranges(core, frames, "minmax"), list_convolutions(core)
    one = quantize_int8(core, ranges, "int8", layers=names[1:2])
    # Only the input of that layer and its weights are quantised.
    assert kinds(one)["QuantizeLinear"] == 2
    assert quantize_int8(core, ranges, "int8", layers=[]) is core


def test_no_sum_of_two_neighbouring_products_saturates_16_bits(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    """An x86 CPU without VNNI adds two products in 16 bits with saturation (`vpmaddubsw`)."""

    def largest_sum(weight: np.ndarray) -> float:
        """Return the largest absolute sum of two neighbouring input channels that are both 255."""
        pairs = np.moveaxis(weight.astype(int), 1, -1).reshape(-1, 2)
        return 255 * max(pairs.clip(0).sum(1).max(), -pairs.clip(None, 0).sum(1).min())

    names = list_convolutions(core, include_ends=True)
    model = quantize_int8(core, calibrate_ranges(core, frames, "minmax"), "int8_cpu", layers=names, pixel_range=(0, 1))
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    quantized = [weight for weight in weights.values() if weight.dtype == np.int8 and weight.ndim == 4]
    assert len(quantized) == len(names)
    assert all(largest_sum(weight) <= 32767 for weight in quantized)
    floats = [onnx.numpy_helper.to_array(t) for t in core.graph.initializer if len(t.dims) == 4]
    plain = [np.rint(weight * 127 / np.abs(weight).max((1, 2, 3), keepdims=True)) for weight in floats]
    assert max(map(largest_sum, plain)) > 32767


def test_a_wrong_scale_is_noticed(core: onnx.ModelProto, frames: list[np.ndarray]) -> None:
    ranges = {name: (low / 50, high / 50) for name, (low, high) in calibrate_ranges(core, frames, "minmax").items()}
    model = quantize_int8(core, ranges, "int8", layers=list_convolutions(core))
    assert psnr_db(run(model, frames[0]), run(core, frames[0])) < 30


def test_layers_return_to_float_by_loss_until_the_budget_holds() -> None:
    """Here a model is the set of its quantised layers, and its loss is the sum of `layer_loss` over them."""
    layer_loss = {"a": 0.05, "b": 0.40, "c": -0.01, "d": 0.20}

    def build(layers: frozenset[str]) -> frozenset[str]:
        return layers

    def measure(layers: frozenset[str]) -> float:
        return sum(layer_loss[layer] for layer in layers)

    losses = measure_layer_losses(list(layer_loss), build, measure)
    assert list(losses) == ["b", "d", "a", "c"]

    def search(budget_db: float, measure_loss: Callable[[frozenset[str]], float] = measure) -> frozenset[str]:
        layers = list(layer_loss)
        return quantize_within_budget(layers, lambda: list(losses), build, measure_loss, budget_db=budget_db).layers

    assert search(0.3) == {"a", "c", "d"}
    assert search(0.05) == {"a", "c"}
    assert search(0.05, lambda _: 9.0) == frozenset()


def test_layers_are_not_ranked_if_all_are_within_the_budget() -> None:
    layers = ["a", "b"]
    found = quantize_within_budget(
        layers, lambda: pytest.fail("not needed"), lambda quantized: quantized, lambda _: 0.1, budget_db=0.2
    )
    assert found.layers == {"a", "b"}


def test_calibration_frames_cover_rare_scenes() -> None:
    """95 of 100 frames are alike; the five others are selected, although they are the last."""
    alike = [make_image(64, 48, seed=0) // 2 + shift // 30 for shift in range(95)]
    rng = np.random.default_rng(0)
    rare = [np.full((48, 64, 3), 250, np.uint8), np.zeros((48, 64, 3), np.uint8)]
    rare += [
        cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), sigma) for sigma in (0.8, 2, 4)
    ]
    selected = {id(frame) for frame in select_frames(alike + rare, 8)}
    assert {id(frame) for frame in rare} <= selected
    assert len(selected) == 8
    assert select_frames(rare, 8) == rare


def test_traits_separate_sharp_from_blurred_and_dark_from_bright() -> None:
    sharp = read_frames(CALIBRATION)[0]
    assert measure_traits(cv2.GaussianBlur(sharp, (0, 0), 3))[0] < measure_traits(sharp)[0] - 1
    assert measure_traits(sharp // 2)[1] < measure_traits(sharp)[1]


def test_a_long_video_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MAX_FRAMES", 10)
    for count in (3, 10, 11, 95):
        kept = calibration._sample_evenly(iter(range(count)))
        assert len(kept) <= 10
        assert kept[0] == 0
        assert len(set(np.diff(kept))) == 1
        assert kept[-1] + np.diff(kept)[0] >= count


def test_frames_are_read_from_videos(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", size=(320, 280))
    frames = read_frames(tmp_path / "clip.mp4")
    assert (len(frames), frames[0].shape) == (10, (256, 256, 3))


@pytest.mark.parametrize(
    ("make_frame", "error", "words"),
    [
        (
            lambda seed: make_image(64, 48, seed=0),
            UsageError,
            r"too few calibration frames \(12 frames, 1 of them different\)",
        ),
        (
            lambda seed: np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8),
            UsageError,
            "look like random numbers",
        ),
        (None, InputError, "no images found"),
    ],
)
def test_useless_calibration_frames_are_refused(
    make_frame: object, error: type[Exception], words: str, tmp_path: Path
) -> None:
    for seed in range(12 if make_frame else 0):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), make_frame(seed))
    with pytest.raises(error, match=words):
        read_frames(tmp_path)


def test_the_bundled_frames_match_the_manifest() -> None:
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


def test_a_step_is_computed_once_for_the_same_inputs(tmp_path: Path) -> None:
    cache = StepCache(tmp_path, base="1")
    assert cache.get("double", {"of": 2}, lambda: b"4") == b"4"
    assert StepCache(tmp_path, base="1").get("double", {"of": 2}, lambda: b"wrong") == b"4"
    assert StepCache(tmp_path, base="2").get("double", {"of": 2}, lambda: b"new code") == b"new code"
    third = StepCache(tmp_path, base="1")
    assert third.get("double", {"of": 3}, lambda: b"6") == b"6"
    assert third.computed == ["double"]
    third.remove_unused()
    assert len(list(tmp_path.iterdir())) == 1
    (kept,) = tmp_path.iterdir()
    for content in (b"", kept.read_bytes()[:-1]):  # after a power cut
        kept.write_bytes(content)
        assert StepCache(tmp_path, base="1").get("double", {"of": 3}, lambda: b"6") == b"6"
    (tmp_path / "a-folder").mkdir()
    third.remove_unused()
    assert compute_digest("ab", "c") != compute_digest("a", "bc")
    assert compute_folder_digest(tmp_path) != compute_folder_digest(ROOT / "calib_data")
