"""Weights files of torchvision's ResNets give encoders with torchvision's output."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from train.models import create_generator
from train.models.encoders import PretrainedError

DEPTHS = {"18": (2, 2, 2, 2), "50": (3, 4, 6, 3)}
WIDTH = 8


def torchvision_state(size: str) -> dict[str, Tensor]:
    """Return random weights with the names and shapes of torchvision's ResNet of an eighth of the width."""
    rng = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def add(convolution: str, norm: str, out: int, channels: int, side: int) -> None:
        state[f"{convolution}.weight"] = torch.randn(out, channels, side, side, generator=rng) / (channels**0.5 * side)
        for name in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{name}"] = torch.rand(out, generator=rng) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    add("conv1", "bn1", WIDTH, 3, 7)
    channels = WIDTH
    for stage, depth in enumerate(DEPTHS[size]):
        inner = WIDTH * 2**stage
        layers = [(inner, 3), (inner, 3)] if size == "18" else [(inner, 1), (inner, 3), (4 * inner, 1)]
        for block in range(depth):
            prefix, below = f"layer{stage + 1}.{block}", channels
            for number, (out, side) in enumerate(layers, start=1):
                add(f"{prefix}.conv{number}", f"{prefix}.bn{number}", out, below, side)
                below = out
            if block == 0 and (stage or size == "50"):
                add(f"{prefix}.downsample.0", f"{prefix}.downsample.1", below, channels, 1)
            channels = below
    return state | {"fc.weight": torch.zeros(10, channels), "fc.bias": torch.zeros(10)}


def torchvision_features(state: dict[str, Tensor], x: Tensor, size: str) -> Tensor:
    """Return the last map of torchvision's ResNet, version 1.5: the 3x3 convolution of a bottleneck has the stride."""

    def layer(x: Tensor, convolution: str, norm: str, stride: int) -> Tensor:
        weight = state[f"{convolution}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        parts = [state[f"{norm}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts)

    x = F.max_pool2d(layer(x, "conv1", "bn1", 2).relu(), 3, 2, 1)
    strided = 1 if size == "18" else 2
    for stage, depth in enumerate(DEPTHS[size]):
        for block in range(depth):
            prefix, stride = f"layer{stage + 1}.{block}", 2 if stage and block == 0 else 1
            y, last = x, 2 if size == "18" else 3
            for number in range(1, last + 1):
                y = layer(y, f"{prefix}.conv{number}", f"{prefix}.bn{number}", stride if number == strided else 1)
                y = y.relu() if number < last else y
            if f"{prefix}.downsample.0.weight" in state:
                x = layer(x, f"{prefix}.downsample.0", f"{prefix}.downsample.1", stride)
            x = (x + y).relu()
    return x


@pytest.mark.parametrize("size", ["18", "50"])
def test_an_encoder_with_weights_of_torchvision_has_its_output(size: str, tmp_path: Path) -> None:
    state = torchvision_state(size)
    torch.save(state, tmp_path / "resnet.pth")
    generator = create_generator("resnet_unet", size=size, width=WIDTH, pretrained=str(tmp_path / "resnet.pth"))
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        own = generator.encoder.eval()(x).last_hidden_state
        torch.testing.assert_close(own, torchvision_features(state, x, size), rtol=1e-4, atol=1e-4)


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save(torchvision_state("18"), tmp_path / "resnet.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg.pth")
    for name, network, words in (
        ("resnet.pth", "resnet_unet", r"has other layers: .*resnet.pth; match options\.size"),
        ("vgg.pth", "resnet_unet", r"no ResNet of torchvision \(features.0.weight is no weight"),
        ("resnet.pth", "swin_deblur", "which only a ResNet can be"),
    ):
        with pytest.raises(PretrainedError, match=words):
            create_generator(network, pretrained=str(tmp_path / name))
