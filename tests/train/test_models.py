"""Networks have the published layers, work at any size, do not mix the images of a batch, and can learn."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import SHARED
from train.checkpoint import load_generator, publish
from train.config import Recipe, apply_overrides
from train.errors import CheckpointError
from train.models import GENERATORS, Generator, PatchGan, create_generator, restore_frames, run_padded
from train.models.base import patches_from_pixels, pixels_from_patches
from train.models.encoders import PretrainedError
from train.models.half_resolution import HalfResolution
from train.models.skip_connections import DenseSkips
from train.recipes import RECIPES

REDUCED = {
    "edge": {"widths": (16,), "blocks": (2,)},
    "deblurgan_v2": {"width": 8},
    "mimo_unet": {"width": 8, "blocks": 1},
    "nafnet": {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (1,)},
    "restormer": {"width": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 1},
    "rt_focuser": {"dims": (8, 8, 16, 16, 16), "depths": (1, 1, 1, 1, 1)},
    "resnet_unet": {"size": "18", "width": 8},
    "swin_deblur": {"size": "tiny", "width": 32},
    "two_stage_cnn": {},
}


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def macs_per_pixel(network: nn.Module, size: int = 32) -> float:
    """Return the multiply-accumulates of all convolutions for each pixel; shared weights count at every use."""
    macs = []

    def count(layer: nn.Conv2d, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        macs.append(layer.weight[0].numel() * output[0].numel())

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    network(torch.zeros(1, 3, size, size))
    return sum(macs) / size**2


def test_two_stage_cnn_has_the_parameters_and_macs_of_listing_1() -> None:
    generator = create_generator("two_stage_cnn").eval()
    assert parameters(generator) == 253_155
    assert macs_per_pixel(generator) == 367_296


_HALVE_AND_ENLARGE = (48 * 48 + 12 * 48 * 9) / 16
"""MAC per pixel of the convolutions that halve and enlarge the image, whose weights are fixed: they are no layers.

The permutation before the enlargement is not counted: the export merges it into another convolution.
"""


def test_edge_networks_have_the_cost_and_receptive_field_of_their_cards() -> None:
    for name, facts in {
        "edge-s": (1_238_277, 10_830.5, 688),
        "edge-m": (1_863_253, 23_102.5, 752),
        "edge-l": (2_103_781, 37_438.5, 816),
    }.items():
        generator = create_generator("edge", **RECIPES[name].options).eval()
        assert (parameters(generator), macs_per_pixel(generator, size=160) + _HALVE_AND_ENLARGE) == facts[:2]
        with torch.no_grad():
            for weight in generator.parameters():
                weight.abs_().add_(1e-3)  # all ReLUs let the gradient through
        probe = torch.zeros(1, 3, 960, 960, requires_grad=True)
        generator(probe)[0, :, 480:484, 480:484].sum().backward()
        reached = probe.grad.abs().sum(dim=(0, 1)).nonzero()
        assert (reached.max(0).values - reached.min(0).values + 1).tolist() == [facts[2]] * 2


def test_edge_l_gan_has_the_cost_of_its_card() -> None:
    generator = create_generator("edge", **RECIPES["edge-l-gan"].options).eval()
    assert (parameters(generator), macs_per_pixel(generator, size=160) + _HALVE_AND_ENLARGE) == (2_976_421, 44_262.5)


def test_a_smaller_pass_at_half_the_resolution_begins_as_another_network() -> None:
    torch.manual_seed(0)
    full = create_generator("edge", widths=(12, 16, 16), blocks=(2, 2, 1), colour="yuv420").eval()
    half = create_generator("edge", widths=(4, 8), blocks=(1, 2)).eval()
    sizes: dict[str, object] = {"half_widths": (4, 8), "half_blocks": (1, 2)}
    both = create_generator("edge", widths=(12, 16, 16), blocks=(2, 2, 1), half_pass=True, **sizes).eval()
    assert both.multiple_of == 16
    both.copy_weights_from(full)
    both.copy_half_pass_from(half)
    blurred = torch.rand(2, 3, 48, 80)
    expected = (full(blurred) + HalfResolution(half)(blurred)) / 2
    torch.testing.assert_close(both(blurred), expected, rtol=0, atol=1e-6)
    with pytest.raises(RuntimeError, match="size mismatch"):
        both.copy_half_pass_from(create_generator("edge", widths=(4, 12), blocks=(1, 2)))
    with pytest.raises(RuntimeError, match="of another kind"):
        both.copy_half_pass_from(both)
    with pytest.raises(RuntimeError, match="no pass"):
        half.copy_half_pass_from(half)
    for wrong in ({"half_widths": (4, 8)}, {"half_pass": True, "half_widths": (4,), "half_blocks": (1, 2)}, sizes):
        with pytest.raises(ValueError, match=r"half_widths|as many"):
            create_generator("edge", **wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"widths": (12, 16, 16), "blocks": (2, 2, 3)},
        {"widths": (8, 12, 16, 16), "blocks": (1, 1, 2, 1)},
        {"widths": (8, 16, 16, 16, 8), "blocks": (1, 2, 2, 2, 1)},
        {"widths": (8, 12, 16), "blocks": (1, 1, 2), "half_pass": True},
        {"widths": (8, 12, 16, 8), "blocks": (1, 2, 2, 1), "half_pass": True},
    ],
)
def test_a_larger_edge_initialised_from_a_smaller_one_begins_with_its_residual_and_trains_all_weights(
    options: dict[str, object],
) -> None:
    torch.manual_seed(0)
    small = create_generator("edge", widths=(8, 12, 16), blocks=(1, 1, 2)).eval()
    large = create_generator("edge", **options).eval()
    large.copy_weights_from(small)
    blurred = torch.rand(2, 3, 128, 64)
    expected = small(blurred)
    if "half_pass" in options:
        expected = (expected + HalfResolution(small)(blurred)) / 2
    torch.testing.assert_close(large(blurred), expected, rtol=0, atol=1e-6)
    before = {name: weight.clone() for name, weight in large.state_dict().items()}
    optimizer = torch.optim.AdamW(large.parameters(), lr=1e-3)
    for _ in range(5):  # new channels have a gradient as soon as a weight reads them
        optimizer.zero_grad()
        (large(blurred) - torch.rand(2, 3, 128, 64)).square().mean().backward()
        optimizer.step()
    for name, weight in large.state_dict().items():
        assert (weight != before[name]).float().mean() > 0.4, name


@pytest.mark.parametrize(
    "options",
    [
        {"widths": (12, 16, 16), "blocks": (2, 1, 1), "half_widths": (4, 8), "half_blocks": (1, 2)},
        {"widths": (8, 12), "blocks": (2, 2), "half_widths": (6, 12, 8), "half_blocks": (2, 3, 1)},
        {"widths": (8, 12), "blocks": (2, 2)},  # the pass of this size has a block that only the full resolution had
    ],
)
def test_a_larger_edge_begins_as_one_with_a_smaller_pass(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    sizes: dict[str, object] = {"half_widths": (4, 8), "half_blocks": (1, 2)}
    small = create_generator("edge", widths=(8, 12), blocks=(2, 1), half_pass=True, **sizes).eval()
    with torch.no_grad():
        small.coarse.share.weight.normal_()
    large = create_generator("edge", half_pass=True, **options).eval()
    large.copy_weights_from(small)
    blurred = torch.rand(2, 3, 128, 64)
    torch.testing.assert_close(large(blurred), small(blurred), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": (4, 16), "blocks": (1, 1)}, "larger there"),
        ({"widths": (16,), "blocks": (1,)}, "more blocks or levels"),
    ],
)
def test_weights_of_a_larger_or_deeper_edge_are_refused(options: dict[str, object], words: str) -> None:
    trained = create_generator("edge", widths=(8, 16), blocks=(1, 1))
    with pytest.raises(RuntimeError, match=words):
        create_generator("edge", **options).copy_weights_from(trained)


def test_a_pass_at_half_the_resolution_sees_the_mean_of_squares() -> None:
    """Both images have the same means of 2x2 pixels, and the full pass is silenced."""
    torch.manual_seed(0)
    network = create_generator("edge", widths=(8, 8), blocks=(1, 1), half_pass=True).eval()
    with torch.no_grad():
        network.head.weight.zero_()
        image = torch.rand(1, 3, 32, 48)
        means = nn.functional.avg_pool2d(image, 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        residuals = [network(blurred) - blurred for blurred in (image, means, image.flip(3))]
    assert residuals[0].std() > 1e-3
    torch.testing.assert_close(residuals[0], residuals[1], rtol=0, atol=1e-5)
    assert (residuals[0] - residuals[2]).abs().max() > 1e-3


def test_a_pass_at_half_the_resolution_needs_two_levels() -> None:
    with pytest.raises(ValueError, match="half_pass needs two levels"):
        create_generator("edge", widths=(8,), blocks=(1,), half_pass=True)


def test_an_edge_of_another_kind_is_refused() -> None:
    with pytest.raises(RuntimeError, match="another kind"):
        create_generator("edge").copy_weights_from(create_generator("two_stage_cnn"))


def make_colour_twins() -> tuple[Generator, Generator]:
    """Return a network for BGR and one for 4:2:0 that began with its weights."""
    torch.manual_seed(0)
    bgr = create_generator("edge", widths=(8,), blocks=(1,)).eval()
    yuv = create_generator("edge", widths=(8,), blocks=(1,), colour="yuv420").eval()
    yuv.copy_weights_from(bgr)
    return bgr, yuv


def test_colours_of_another_network_go_into_the_first_and_the_last_convolution() -> None:
    """Both networks give the same luma where the chroma of the input is constant within squares of 2x2 pixels."""
    bgr, yuv = make_colour_twins()
    luma = torch.rand(1, 1, 32, 48)
    colours = torch.rand(1, 3, 16, 24).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    weights = torch.tensor([0.0722, 0.7152, 0.2126])[:, None, None]
    blurred = luma + colours - (weights * colours).sum(dim=1, keepdim=True)
    residuals = [(network(blurred) - blurred).detach() for network in (bgr, yuv)]
    lumas = [(weights * residual).sum(dim=1) for residual in residuals]
    assert lumas[0].abs().max() > 0.01
    torch.testing.assert_close(lumas[0], lumas[1], rtol=0, atol=1e-5)
    means = [nn.functional.avg_pool2d(residual, 2) for residual in residuals]
    torch.testing.assert_close(means[0], means[1], rtol=0, atol=1e-5)


def test_a_network_for_420_keeps_the_chroma_detail_of_an_image() -> None:
    """Its residual of chroma is constant in each square of 2x2 pixels, and added to the image as it is."""
    _, yuv = make_colour_twins()
    blurred = torch.rand(1, 3, 16, 16)
    residual = (yuv(blurred) - blurred).detach()
    chroma = residual - (torch.tensor([0.0722, 0.7152, 0.2126])[:, None, None] * residual).sum(dim=1, keepdim=True)
    assert chroma.abs().max() > 1e-3
    torch.testing.assert_close(
        chroma, nn.functional.avg_pool2d(chroma, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    )


def test_weights_for_420_fit_a_network_for_bgr_exactly() -> None:
    _, yuv = make_colour_twins()
    bgr = create_generator("edge", widths=(8,), blocks=(1,)).eval()
    bgr.copy_weights_from(yuv)
    blurred = torch.rand(1, 3, 32, 48)
    torch.testing.assert_close(bgr(blurred), yuv(blurred), rtol=0, atol=1e-5)


def test_unknown_colours_are_refused() -> None:
    with pytest.raises(ValueError, match="colour must be bgr or yuv420, got 'nv12'"):
        create_generator("edge", colour="nv12")


def test_channels_of_patches_are_in_the_order_of_the_bytes_of_a_frame() -> None:
    """Row, column, colour: the order in a frame in memory that is cut into squares."""
    frame = torch.arange(8 * 12 * 3).reshape(1, 8, 12, 3)
    squares = frame.reshape(1, 2, 4, 3, 12).permute(0, 1, 3, 2, 4).reshape(1, 2, 3, 48)
    nchw = frame.permute(0, 3, 1, 2)
    assert torch.equal(patches_from_pixels(nchw, 4), squares.permute(0, 3, 1, 2))
    assert torch.equal(pixels_from_patches(patches_from_pixels(nchw, 4), 4), nchw)


def test_swin_base_has_1024_channels_where_the_paper_says() -> None:
    with torch.device("meta"):
        generator = create_generator("swin_deblur")
    assert generator.bottleneck.weight.shape == (128, 1024, 1, 1)
    assert parameters(generator.encoder) == 86_743_224  # Liu et al. 2021: 88 million with the classifier
    assert [type(layer) for layer in generator.decoder] == [
        nn.ConvTranspose2d,
        nn.ReLU,
        nn.ConvTranspose2d,
        nn.ReLU,
        nn.Conv2d,
    ]


def test_resnet_50_is_the_published_encoder() -> None:
    with torch.device("meta"):
        generator = create_generator("resnet_unet")
    assert parameters(generator.encoder) == 23_508_032  # He et al. 2016: 25.6 million with the classifier


def test_dense_skips_are_those_of_unet_plus_plus() -> None:
    """Each node sees all before it at its resolution and the enlarged one below; the decoder sees all of them."""
    torch.manual_seed(0)
    skips = DenseSkips([2, 3, 4], [5, 6, 7])
    assert [(node.in_channels, node.out_channels) for node in skips.nodes] == [(5, 5), (7, 6), (13, 5)]
    assert skips.channels == [12, 9, 4]
    maps = [torch.rand(1, channels, side, side) for channels, side in ((2, 16), (3, 8), (4, 4))]
    results = skips(maps)
    assert [result.shape[1] for result in results] == skips.channels
    for own, result in zip(maps, results, strict=True):
        assert torch.equal(result[:, : own.shape[1]], own)
    changed = skips([maps[0], maps[1], maps[2] + 1])
    assert [not torch.equal(*both) for both in zip(results, changed, strict=True)] == [True, True, True]
    assert torch.equal(results[0][:, :7], changed[0][:, :7])  # the first node does not see the lowest map


def test_gates_of_attention_weigh_skip_connections_by_position() -> None:
    torch.manual_seed(0)
    network = create_generator("resnet_unet", **REDUCED["resnet_unet"], attention=True, dense_skips=True).eval()
    skips = {}
    for gate in network.gates:
        gate.register_forward_hook(lambda gate, inputs, output: skips.update({gate: (inputs[0], output)}))
    network(torch.rand(1, 3, 64, 96))
    assert len(skips) == 4
    for before, after in skips.values():
        assert before.shape[2:] in {(4, 6), (8, 12), (16, 24), (32, 48)}
        factors = after.sum(dim=1) / before.sum(dim=1)
        assert 0 < factors.min() < factors.max() < 1
        torch.testing.assert_close(before * factors[:, None], after)


def test_channel_attention_begins_with_the_network_without_it_and_can_learn() -> None:
    torch.manual_seed(0)
    plain = create_generator("two_stage_cnn").eval()
    network = create_generator("two_stage_cnn", channel_attention=True).eval()
    with pytest.raises(RuntimeError, match="attend_l6"):
        plain.copy_weights_from(network)
    network.copy_weights_from(plain)
    blurred = torch.rand(2, 3, 24, 16) * 2 - 1
    torch.testing.assert_close(network(blurred), plain(blurred))
    again = create_generator("two_stage_cnn", channel_attention=True).eval()
    with torch.no_grad():
        network.attend_l9.restore.weight.normal_()
    again.copy_weights_from(network)
    assert not torch.allclose(network(blurred), plain(blurred))
    assert torch.equal(again(blurred), network(blurred))
    network(blurred).sum().backward()
    assert all(weight.grad.abs().max() > 0 for weight in network.attend_l9.parameters())


def test_patch_gan_is_listing_2() -> None:
    discriminator = PatchGan()
    assert parameters(discriminator) == 2_764_737 + 2 * (128 + 256 + 512)
    pictures = torch.rand(2, 3, 96, 80)
    [probabilities] = discriminator(pictures)
    assert probabilities.shape == (2, 1, 3, 2)
    assert 0 < probabilities.min() < probabilities.max() < 1
    logits = PatchGan(sigmoid=False)
    logits.load_state_dict(discriminator.state_dict())
    discriminator.eval(), logits.eval()
    assert torch.allclose(torch.sigmoid(logits(pictures)[0]), discriminator(pictures)[0])


def test_patch_gan_without_batch_normalisation_does_not_mix_the_images_of_a_batch() -> None:
    pictures = torch.rand(3, 3, 64, 64)
    for normalisation in ("instance", "none"):
        critic = PatchGan(sigmoid=False, normalisation=normalisation)
        assert torch.allclose(critic(pictures)[0][1], critic(pictures[1:2])[0][0], atol=1e-5)


@pytest.mark.parametrize("name", GENERATORS)
def test_generators_take_any_size_and_do_not_mix_the_images_of_a_batch(name: str) -> None:
    """The result has the shape and type of the input, and does not depend on the other images of the batch."""
    torch.manual_seed(0)
    generator = create_generator(name, **REDUCED[name]).eval()
    rng = np.random.default_rng(0)
    for height, width in ((37, 50), (1, 1), (64, 96)):
        frames = torch.from_numpy(rng.integers(0, 256, (2, height, width, 3), dtype=np.uint8))
        restored = restore_frames(generator, frames)
        assert (restored.shape, restored.dtype) == (frames.shape, torch.uint8)
        difference = restored[1:].int() - restore_frames(generator, frames[1:]).int()
        assert difference.abs().max() <= 1


@pytest.mark.parametrize("name", sorted(GENERATORS.keys() - {"rt_focuser"}))
def test_a_residual_of_zero_gives_the_input(name: str) -> None:
    """With zeros in the last layer a network is the identity, if its channel order and pixel range are right.

    All but `rt_focuser`, whose output is a sigmoid.
    """
    generator = create_generator(name, **REDUCED[name]).eval()
    last = [layer for layer in generator.modules() if isinstance(layer, nn.Conv2d)]
    last = generator.tail if name == "edge" else last[-1]
    with torch.no_grad():
        for weight in last.parameters():
            weight.zero_()
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 40, 30, 3), dtype=np.uint8))
    assert torch.equal(restore_frames(generator, frames), frames)


@pytest.mark.parametrize("name", GENERATORS)
def test_published_weights_are_loaded_again(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = create_generator(name, **REDUCED[name]).eval()
    recipe = apply_overrides(RECIPES["edge-s"], [f"generator={name}", f"options={REDUCED[name]}"])
    publish(generator, recipe.to_json(), tmp_path)
    loaded, config = load_generator(tmp_path)
    assert Recipe.from_json((tmp_path / "config.json").read_text()) == recipe
    assert config["generator"] == name
    picture = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(loaded(picture), generator(picture))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("edgy", {}, "known: .*edge, .*resnet_unet"),
        ("edge", {"widths": (0,), "blocks": (1,)}, "at least 1"),
        ("edge", {"widths": (8, 8)}, "as many"),
        ("edge", {"pretrained": "x"}, "unexpected keyword argument 'pretrained'"),
        ("swin_deblur", {"size": "huge"}, "tiny, small, base"),
        ("swin_deblur", {"width": 33}, "multiple of 32"),
        ("swin_deblur", {"strides": (3, 4)}, "even"),
        ("resnet_unet", {"size": "19"}, "18, 34, 50"),
        ("resnet_unet", {"size": "18", "attention": "false"}, "attention must be True or False, got 'false'"),
        ("resnet_unet", {"size": 34, "width": 1}, "at least 8"),
    ],
)
def test_unknown_networks_and_options_are_refused(name: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        create_generator(name, **options)


def test_pretrained_encoder_comes_from_a_folder(tmp_path: Path) -> None:
    for name in ("swin_deblur", "resnet_unet"):
        first = create_generator(name, **REDUCED[name])
        first.encoder.save_pretrained(tmp_path / name)
        second = create_generator(name, **REDUCED[name], pretrained=str(tmp_path / name))
        theirs = second.encoder.state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in first.encoder.state_dict().items())
        other = {"swin_deblur": {"width": 64}, "resnet_unet": {"width": 16}}[name]
        with pytest.raises(PretrainedError, match=r"match options\.size"):
            create_generator(name, **REDUCED[name] | other, pretrained=str(tmp_path / name))


def test_error_for_a_missing_pretrained_encoder_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PretrainedError, match="holds no weights"):
        create_generator("swin_deblur", pretrained=str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PretrainedError, match=r"HF_HUB_OFFLINE is set: nobody/nothing; .*options\.pretrained=None"):
        create_generator("resnet_unet", pretrained="nobody/nothing")


def test_a_hub_without_an_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(_api: object, name: str, **_options: object) -> None:
        asked.append(name)
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("train.models.encoders.HfApi.model_info", refuse)
    with pytest.raises(PretrainedError, match="hub cannot be reached: nobody/nothing"):
        create_generator("resnet_unet", pretrained="nobody/nothing")
    assert asked == ["nobody/nothing"]


def true_crops() -> tuple[torch.Tensor, torch.Tensor]:
    """Return four 96x96 crops of GoPro pairs with different blur: float32[4, 3, 96, 96] in [0, 1] each."""
    names = ("GOPR0372_07_00_000047", "GOPR0372_07_00_000095", "GOPR0374_11_00_st_frame-815_n_avg-10")
    places = [(names[0], 300, 600), (names[1], 300, 600), (names[2], 300, 600), (names[1], 420, 200)]

    def crops(kind: str) -> torch.Tensor:
        pictures = [
            cv2.imread(str(SHARED / "pairs" / "gopro_train" / kind / f"{name}.webp"))[top : top + 96, left : left + 96]
            for name, top, left in places
        ]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255

    return crops("blur"), crops("sharp")


def mean_psnr_db(pictures: torch.Tensor, sharp: torch.Tensor) -> float:
    return (-10 * torch.log10((pictures.clamp(0, 1) - sharp).square().mean((1, 2, 3)))).mean().item()


@pytest.mark.slow
@pytest.mark.needs_shared_data
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "learning_rate", "steps"),
    [("two_stage_cnn", 5e-4, 150), ("edge", 1e-3, 600), ("swin_deblur", 1e-3, 60), ("resnet_unet", 1e-3, 500)],
)
def test_generator_can_overfit_four_crops_with_true_blur(name: str, learning_rate: float, steps: int) -> None:
    blurred, sharp = true_crops()
    torch.manual_seed(0)
    generator: Generator = create_generator(name, **({} if name == "edge" else REDUCED[name]))
    low, high = generator.pixel_range

    def output() -> torch.Tensor:
        return (run_padded(generator, blurred * (high - low) + low, multiple_of=generator.multiple_of) - low) / (
            high - low
        )

    optimizer = torch.optim.Adam(generator.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        (output() - sharp).square().mean().backward()
        optimizer.step()
    generator.eval()
    with torch.inference_mode():
        before, after = mean_psnr_db(blurred, sharp), mean_psnr_db(output(), sharp)
    print(f"{name}: {before:.2f} -> {after:.2f} dB")
    assert after > before + 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "JSON is nested deeper"),
        ('{"generator": "edge", "options": {"widths": [-1]}}', "widths and blocks must be"),
        ('{"generator": "resnet_unet", "options": {"layer_type": [1]}}', "options of resnet_unet"),
    ],
    ids=["deep", "negative", "unknown"],
)
def test_odd_configurations_are_refused_in_one_line(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=words) as refusal:
        load_generator(tmp_path)
    assert "\n" not in str(refusal.value)
