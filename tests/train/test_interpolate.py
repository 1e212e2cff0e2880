"""Weights between those of two trainings of one network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from train.checkpoint import load_generator, load_recipe, publish
from train.config import apply_overrides
from train.interpolate import main
from train.models import create_generator
from train.recipes import RECIPES

OPTIONS = {"widths": (8, 16), "blocks": (1, 1)}


def write_run(run: Path, seed: int, **options: object) -> None:
    torch.manual_seed(seed)
    settings = [f"options={OPTIONS | options}", f"seed={seed}"]
    publish(create_generator("edge", **OPTIONS | options), apply_overrides(RECIPES["edge-s"], settings).to_json(), run)


def mix(folder: Path, share: str, out: str = "mixed") -> int:
    names = ["--from", str(folder / "first"), "--to", str(folder / "second"), "--out", str(folder / out)]
    return main([*names, "--share", share])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_second_network(share: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "first", 1)
    write_run(tmp_path / "second", 2)
    assert mix(tmp_path, str(share)) == 0
    assert capsys.readouterr().out.startswith(f"{share:g} of {tmp_path / 'second'}, {1 - share:g} of ")
    first, second, mixed = (load_generator(tmp_path / name)[0].state_dict() for name in ("first", "second", "mixed"))
    for name, weight in mixed.items():
        torch.testing.assert_close(weight, (1 - share) * first[name] + share * second[name], rtol=0, atol=1e-6)
    assert load_recipe(tmp_path / "mixed").seed == 2


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan"])
def test_a_share_beyond_both_networks_is_refused(
    share: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("first", "second")):
        write_run(tmp_path / name, seed)
    assert mix(tmp_path, share) == 2
    assert "--share must be from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "mixed").exists()


def test_other_networks_and_folders_in_use_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "first", 1)
    write_run(tmp_path / "second", 2, widths=(16, 16))
    assert mix(tmp_path, "0.5") == 2
    assert "the weights differ in names or shapes; give two runs of one network" in capsys.readouterr().err
    assert mix(tmp_path, "0.5", out="first") == 2
    assert "this folder holds a network already" in capsys.readouterr().err
