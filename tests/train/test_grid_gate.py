"""The gate of generators that lay a grid over images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from runtime.errors import EngineError
from tests.train.conftest import lpips_file, scene
from train.checkpoint import publish
from train.config import LossConfig
from train.evaluate.__main__ import main as evaluate
from train.grid_gate import GRID_MARGIN_CODES, has_discriminator, require_no_grid
from train.models import Generator, create_generator
from train.recipes import RECIPES


def generator_with_grid(codes: float) -> Generator:
    """Return a network that adds `codes` to one of the sixteen positions, and nothing else."""
    generator = create_generator("edge", widths=(8,), blocks=(1,))
    with torch.no_grad():
        for parameter in generator.tail.parameters():
            parameter.zero_()
        generator.tail.bias[3:6] = codes / 255
    return generator.eval()


def config_of(*, init: Path | None = None, adversarial: float = 0.01) -> dict[str, Any]:
    recipe = dataclasses.replace(
        RECIPES["edge-s"],
        options={"widths": (8,), "blocks": (1,)},
        init=str(init) if init else None,
        losses=LossConfig(l1=1.0, adversarial=adversarial),
    )
    config: dict[str, Any] = json.loads(recipe.to_json())
    return config


@pytest.fixture
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    return [(np.clip(scene(96, 80, seed=seed), 20, 235),) * 2 for seed in range(3)]


def test_a_grid_above_the_parents_is_refused_in_one_line(
    pairs: list[tuple[np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    publish(generator_with_grid(0.0), json.dumps(config_of(adversarial=0.0)), tmp_path / "parent")
    config = config_of(init=tmp_path / "parent")
    line = require_no_grid(generator_with_grid(0.0), config, pairs, path="run")
    assert line.startswith("grid of 4 pixels: ")
    assert "training began with, parent, has" in line
    sentence = rf"codes, the network .* parent, has .*, and {GRID_MARGIN_CODES} more is allowed: run; train with"
    with pytest.raises(EngineError, match=sentence) as refusal:
        require_no_grid(generator_with_grid(6.0), config, pairs, path="run")
    assert "\n" not in str(refusal.value)
    assert require_no_grid(generator_with_grid(6.0), config, pairs, path="run", warn_only=True)
    publish(generator_with_grid(6.0), json.dumps(config), tmp_path / "parent")  # a parent with the same grid
    require_no_grid(generator_with_grid(6.0), config, pairs, path="run")


def test_without_a_parent_the_sharp_images_are_the_reference(pairs: list[tuple[np.ndarray, np.ndarray]]) -> None:
    assert "the sharp images have" in require_no_grid(generator_with_grid(0.0), config_of(), pairs, path="run")
    missing = config_of(init=Path("/no/such/run"))
    assert "cannot be loaded" in require_no_grid(generator_with_grid(0.0), missing, pairs, path="run")
    with pytest.raises(EngineError, match="the sharp images have"):
        require_no_grid(generator_with_grid(6.0), config_of(), pairs, path="run")
    small = [(blurred[:40], sharp[:40]) for blurred, sharp in pairs]
    assert require_no_grid(generator_with_grid(6.0), config_of(), small, path="run") == ""


def test_only_networks_trained_with_a_discriminator_are_measured() -> None:
    assert has_discriminator(config_of())
    assert not has_discriminator(config_of(adversarial=0.0))
    assert not has_discriminator({"generator": "nafnet", "options": {}})


def test_the_evaluation_writes_its_report_and_fails(
    gopro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(generator_with_grid(6.0), json.dumps(config_of()), tmp_path / "run")
    lpips_file(tmp_path / "lpips.safetensors")
    arguments = ["--checkpoint", str(tmp_path / "run"), "--data", str(gopro), "--out", str(tmp_path / "report")]
    arguments += ["--size", "full", "--perceptual", str(tmp_path / "lpips.safetensors")]
    assert evaluate(arguments) == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "grid of 4 pixels" in line
    assert (tmp_path / "report" / "report.md").exists()
