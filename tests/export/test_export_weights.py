"""`python -m export WEIGHTS`: weights of published networks become engines, other files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from export.__main__ import main
from runtime.engines import open_engine
from tests.conftest import make_image
from train.models import create_generator, restore_frames

TINY = {"width": 8, "encoder_blocks": [1], "decoder_blocks": [1]}


def write_weights(path: Path) -> torch.nn.Module:
    torch.manual_seed(0)
    generator = create_generator("nafnet", **TINY).eval()
    for name, weight in generator.named_parameters():
        if name.endswith(("beta", "gamma")):
            torch.nn.init.uniform_(weight, -0.5, 0.5)
    torch.save({"params": {f"module.{key}": value for key, value in generator.state_dict().items()}}, path)
    return generator


def test_weights_become_an_engine_that_agrees_with_the_network(tmp_path: Path, pairs: Path) -> None:
    path, out = tmp_path / "nafnet.pth", tmp_path / "out"
    generator = write_weights(path)
    arguments = [str(path), "--out", str(out), "--pairs", str(pairs), "--precision", "fp32", "--pixels", "bgr"]
    assert main(arguments) == 0
    frame = make_image(61, 47)
    with open_engine(out / "deblur_fp32.onnx", provider="cpu") as engine:
        restored = engine(frame)
        assert engine.spec.generator == "nafnet(width=8, encoder_blocks=[1], middle_blocks=1, decoder_blocks=[1])"
    expected = restore_frames(generator, torch.from_numpy(frame[None]))[0].numpy()
    assert abs(restored.astype(int) - expected).max() <= 1
    assert main(arguments) == 0  # nothing has changed
    assert main([*arguments, "--option", "pooling_px=8", "--force"]) == 0
    spec = json.loads((out / "report.json").read_text())["engines"]["fp32"]["spec"]
    assert spec["generator"].endswith("pooling_px=8)")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--network", "auto"], 4, "weights are of no known network"),
        (["--option", "pooling_px"], 2, "--option pooling_px: no option with a value"),
    ],
)
def test_unknown_weights_write_nothing(
    arguments: list[str], code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"conv.weight": torch.zeros(3, 3, 1, 1)}, tmp_path / "weights.pth")
    assert main([str(tmp_path / "weights.pth"), "--out", str(tmp_path / "out"), *arguments]) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
