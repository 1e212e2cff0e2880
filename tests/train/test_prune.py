"""Channels are removed from all layers that share them, and the smaller network trains and is exported."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from export.graph.macs import count_macs_per_pixel
from export.torch_to_onnx import export_to_onnx
from train.__main__ import main as train_main
from train.checkpoint import load_generator, publish
from train.models import Generator, create_generator
from train.models.channels import FIXED, measure_groups
from train.prune import main, prune
from train.recipes import RECIPES
from train.training.run_log import read_log

_TWO_STAGE = {"widths": (24, 48, 24, 24)}
_SMALLER_PASS = {"half_widths": (32, 64), "half_blocks": (1, 1)}
NETWORKS: dict[str, tuple[str, dict[str, Any], dict[str, tuple[int, ...]]]] = {
    "edge": ("edge", {"widths": (32, 64), "blocks": (1, 2)}, {"widths": (24, 48)}),
    "edge half_pass": (
        "edge",
        {"widths": (32, 32, 64), "blocks": (1, 1, 1), "half_pass": True},
        {"widths": (24, 24, 48)},
    ),
    "edge smaller half_pass": (
        "edge",
        {"widths": (32, 64), "blocks": (1, 1), "half_pass": True} | _SMALLER_PASS,
        {"widths": (24, 48), "half_widths": (24, 48)},
    ),
    "two_stage_cnn": ("two_stage_cnn", {}, _TWO_STAGE),
    "channel_attention": ("two_stage_cnn", {"channel_attention": True}, _TWO_STAGE),
}


def silence_channels(generator: Generator) -> None:
    """Make every fourth channel of each group 0 in all layers that write to it, with noise in all that read it."""
    state, layers = generator.state_dict(), generator.list_layers()
    sizes = measure_groups(layers, state)
    for layer in layers:
        if layer.outputs == (FIXED,) or "restore" in layer.name:
            continue
        silent = torch.cat([torch.arange(sizes[group]) % 4 == 1 for group in layer.outputs])
        for key in (f"{layer.name}.weight", f"{layer.name}.bias"):
            state[key][silent.repeat_interleave(layer.repeat)] = 0


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_that_do_nothing_are_removed_without_a_change(name: str) -> None:
    network, options, narrowed = NETWORKS[name]
    torch.manual_seed(0)
    generator = create_generator(network, **options).eval()
    with torch.no_grad():
        for key, weight in generator.state_dict().items():
            if weight.ndim == 1 and not key.endswith("var"):
                weight.add_(0.1 * torch.randn(len(weight)))
            elif "restore" in key:
                weight.normal_()
    silence_channels(generator)
    recipe = dataclasses.replace(RECIPES["edge-s"], generator=network, options=options)
    smaller, changed = prune(generator, recipe, keep=0.75)
    assert changed.options == options | narrowed
    low, high = generator.pixel_range
    blurred = torch.rand(2, 3, 2 * generator.multiple_of, 3 * generator.multiple_of) * (high - low) + low
    with torch.inference_mode():
        expected = generator(blurred)
        assert (expected - blurred).abs().max() > 1e-3
        torch.testing.assert_close(smaller(blurred), expected, rtol=0, atol=1e-5)


def test_a_pruned_network_is_fine_tuned_and_exported_smaller(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    options = {"widths": (16, 32), "blocks": (1, 1)}
    generator = create_generator("edge", **options).eval()
    recipe = dataclasses.replace(RECIPES["edge-s"], options=options)
    publish(generator, recipe.to_json(), tmp_path / "run")
    arguments = ["--checkpoint", str(tmp_path / "run"), "--keep", "0.5", "--out", str(tmp_path / "pruned")]
    assert main(arguments) == 0
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    printed = printed[printed.index("--network") : printed.index("--data")]
    smaller, _ = load_generator(tmp_path / "pruned")
    macs = [count_macs_per_pixel(export_to_onnx(network), height=8, width=8) for network in (generator, smaller)]
    assert macs[1] < 0.4 * macs[0]
    assert main(arguments) == 2  # there is a network already
    settings = ("data.size_px=(32, 32)", "data.crops=64", "batch=8", "epochs=2", "warmup_steps=0")
    run = [*printed, "--data", str(photos), "--out", str(tmp_path / "tuned")]
    run += [text for setting in settings for text in ("--set", setting)]
    assert train_main(run) == 0
    tuned, _ = load_generator(tmp_path / "tuned")
    tuned.load_state_dict(smaller.state_dict())  # the same weights, of the same shapes
    entries = read_log(tmp_path / "tuned")
    assert entries[-1]["train/content_loss"] < entries[0]["train/content_loss"]


@pytest.mark.parametrize(
    ("network", "options", "keep", "words"),
    [
        ("edge", {"widths": (16,), "blocks": (1,)}, "1.5", "--keep must lie between 0 and 1"),
        ("edge", {"widths": (16,), "blocks": (1,)}, "0.9", "removes no channels"),
        ("nafnet", {"width": 8, "encoder_blocks": (1,), "decoder_blocks": (1,)}, "0.5", "Nafnet cannot be removed"),
    ],
)
def test_what_cannot_be_pruned_gets_one_line(
    network: str, options: dict[str, Any], keep: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = dataclasses.replace(RECIPES["edge-s"], generator=network, options=options)
    publish(create_generator(network, **options), recipe.to_json(), tmp_path / "run")
    assert main(["--checkpoint", str(tmp_path / "run"), "--keep", keep, "--out", str(tmp_path / "out")]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line
    assert not (tmp_path / "out").exists()
