"""An export refuses a network that was trained with a discriminator and lays a grid over images."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch

from export.__main__ import main
from tests.conftest import make_image
from train.checkpoint import publish
from train.config import apply_overrides
from train.models import create_generator
from train.recipes import RECIPES


def test_a_network_that_lays_a_grid_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("blur", "sharp"):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "pairs" / kind / "0.png"), make_image(96, 80, seed=0))
    options = {"widths": (8,), "blocks": (1,)}
    generator = create_generator("edge", **options)
    with torch.no_grad():
        for parameter in generator.tail.parameters():
            parameter.zero_()
        generator.tail.bias[3:6] = 6 / 255
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(tmp_path / "pairs")]
    arguments += ["--precision", "fp32", "--pixels", "bgr"]
    for adversarial, force, code in ((0.01, [], 4), (0.01, ["--force"], 0), (0.0, ["-y"], 0)):
        (tmp_path / "run").mkdir(exist_ok=True)
        recipe = apply_overrides(RECIPES["edge-s"], [f"options={options}", f"losses.adversarial={adversarial}"])
        publish(generator.eval(), recipe.to_json(), tmp_path / "run")
        assert main([*arguments, *force]) == code
        assert ("grid of 4 pixels" in capsys.readouterr().err) == (adversarial > 0)
        assert (tmp_path / "out" / "deblur_fp32.onnx").exists() == (code == 0)
