"""Training with less memory: gradients added up over parts of a step, and activations computed again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from runtime.errors import UsageError
from tests.train.test_gan import pair, recipe_with, step_for
from tests.train.test_training import same_state, small, train_and_die
from train.models import GENERATORS, Generator, create_generator
from train.recipes import RECIPES
from train.training.loop import train
from train.training.memory import checkpoint_activations, hold_statistics
from train.training.run_log import read_log

SMALL_OPTIONS: dict[str, dict[str, Any]] = {
    "edge": {"widths": (8, 8), "blocks": (2, 2)},
    "mimo_unet": {"width": 4, "blocks": 4},
    "nafnet": {"width": 4, "encoder_blocks": (1, 1), "middle_blocks": 2, "decoder_blocks": (1, 1)},
    "resnet_unet": {"size": "18", "width": 8},
    "restormer": {"width": 8, "blocks": (1, 1, 1, 1), "refinement_blocks": 1},
    "rt_focuser": {"dims": (8, 8, 8, 8, 8), "depths": (1, 1, 1, 1, 1)},
    "swin_deblur": {"size": "tiny", "width": 32},
    "deblurgan_v2": {"width": 8},
}


@pytest.mark.parametrize("settings", [{}, {"start_step": 5}, {"steps": 2, "feature_matching": 0.1, "r1": 1.0}])
def test_four_batches_of_four_take_the_step_of_one_batch_of_sixteen(settings: dict[str, Any]) -> None:
    whole = dataclasses.replace(recipe_with(**settings), batch=16)
    parts = dataclasses.replace(whole, batch=4, accumulate_steps=4)
    steps = [step_for(recipe) for recipe in (whole, parts)]
    restored, numbers = zip(*(step(*pair(16)) for step in steps), strict=True)
    assert torch.allclose(*restored, atol=1e-6)
    assert set(numbers[0]) == set(numbers[1])
    for name, number in numbers[0].items():
        assert number.item() == pytest.approx(numbers[1][name].item(), rel=1e-4), name
    for name, network in steps[0].networks.items():
        first, second = (step.optimizers[name].state for step in steps)
        for ours, theirs in zip(network.parameters(), steps[1].networks[name].parameters(), strict=True):
            if ours in first:  # after one step, Adam's first moment is a tenth of the gradient
                gradients = first[ours]["exp_avg"], second[theirs]["exp_avg"]
                assert (gradients[0] - gradients[1]).abs().max() < 1e-4 * gradients[0].abs().max() + 1e-9
        assert bool(first) == bool(second) == (name == "generator" or settings.get("start_step", 0) == 0)


def test_a_run_that_adds_up_gradients_takes_the_images_of_larger_batches_and_resumes(
    photos: Path, tmp_path: Path
) -> None:
    whole, parts = small("batch=4"), small("batch=2", "accumulate_steps=2")
    for name, recipe in (("whole", whole), ("parts", parts)):
        train(recipe, data=[photos], run=tmp_path / name)
    train_and_die(parts, data=[photos], run=tmp_path / "broken", in_step=6)
    train(parts, data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "parts", tmp_path / "broken")
    logs = [read_log(tmp_path / name) for name in ("whole", "parts")]
    assert [line["step"] for line in logs[1]] == [3, 6, 9]
    for first, second in zip(*logs, strict=True):
        assert first["train/content_loss"] == pytest.approx(second["train/content_loss"], rel=1e-3)


def checkpointed_and_plain(name: str) -> list[Generator]:
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(create_generator(name, **SMALL_OPTIONS.get(name, {})))
    checkpoint_activations(networks[0])
    return networks


def count_kept_bytes(network: Generator, x: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Return the size of all tensors that a forward pass keeps for the backward pass, and its output."""
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(x)
    return sum(sizes.values()), output


@pytest.mark.parametrize("name", GENERATORS)
def test_activations_computed_again_give_the_same_gradients_and_statistics_in_less_memory(name: str) -> None:
    side = 224 if name == "swin_deblur" else 64
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    sizes = []
    networks = checkpointed_and_plain(name)
    for network in networks:
        network.train()
        torch.manual_seed(1)
        size, output = count_kept_bytes(network, x)
        output.square().mean().backward()
        sizes.append(size)
    assert sizes[0] < 0.75 * sizes[1]
    for ours, theirs in zip(*(network.parameters() for network in networks), strict=True):
        if theirs.grad is None:
            assert ours.grad is None
        else:
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4 * float(theirs.grad.abs().max()))
    for ours, theirs in zip(*(network.buffers() for network in networks), strict=True):
        assert torch.equal(ours, theirs)
    assert list(networks[0].state_dict()) == list(networks[1].state_dict())


def test_a_network_without_parts_to_checkpoint_is_refused() -> None:
    class Plain(Generator):
        pass

    with pytest.raises(UsageError, match="Plain names no parts"):
        checkpoint_activations(Plain())


def test_statistics_are_held_in_train_mode() -> None:
    network = torch.nn.BatchNorm2d(2)
    x = torch.rand(3, 2, 4, 4)
    expected = network(x)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with hold_statistics(network):
        assert torch.equal(network(x + 1), network(x + 1))
        assert torch.allclose(network(x), expected)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network(x + 1)
    assert not torch.equal(network.running_mean, before["running_mean"])


def test_a_run_with_checkpointing_ends_with_the_same_weights(photos: Path, tmp_path: Path) -> None:
    for name, value in (("plain", False), ("again", True)):
        recipe = small("precision=fp32", f"checkpoint_activations={value}")
        train(recipe, data=[photos], run=tmp_path / name)
    states = [torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("plain", "again")]
    for part in ("generator", "average"):
        for key, value in states[0][part].items():
            assert torch.allclose(value, states[1][part][key], atol=1e-6), key


def test_settings_of_the_recipes() -> None:
    recipe = dataclasses.replace(RECIPES["edge-s"], batch=4, accumulate_steps=4)
    assert recipe.step_pairs == 16
    with pytest.raises(ValueError, match="accumulate_steps must be at least 1"):
        dataclasses.replace(recipe, accumulate_steps=0)
