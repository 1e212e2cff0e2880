"""Weights of published networks are recognised, load strictly and compute what the official code computes."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from runtime.errors import UsageError
from tests.train.published_reference import official_output, seeded_input, seeded_state
from train.__main__ import build_recipe, main
from train.checkpoint import load_generator
from train.errors import CheckpointError
from train.models import GENERATORS, create_generator
from train.published import recognise
from train.training.run_log import read_log
from train.weights import PUBLISHED_NETWORKS, is_published


@dataclass(frozen=True)
class Official:
    """An official configuration: what its weights are recognised as, and the input of the reference output."""

    network: str
    options: dict[str, Any]
    size: tuple[int, int] = (32, 48)
    every: int = 1
    """Distance of the rows and columns that the reference output holds."""


OFFICIAL = {
    "nafnet-gopro-width32": Official(
        "nafnet",
        {"width": 32, "encoder_blocks": [1, 1, 1, 28], "middle_blocks": 1, "decoder_blocks": [1, 1, 1, 1]},
    ),
    "mimo-unet": Official("mimo_unet", {"width": 32, "blocks": 8}),
    "mimo-unet-plus": Official("mimo_unet", {"width": 32, "blocks": 20}),
    "rt-focuser": Official(
        "rt_focuser", {"dims": [16, 32, 128, 160, 256], "depths": [3, 4, 4, 3, 2], "kernels": [3, 3, 7, 7, 7]}
    ),
    "restormer": Official(
        "restormer",
        {"width": 48, "blocks": [4, 6, 6, 8], "refinement_blocks": 4, "heads": [1, 2, 4, 8], "expansion": 2.66}
        | {"bias": False, "norm_bias": True},
    ),
    "restormer-small": Official(
        "restormer",
        {"width": 16, "blocks": [1, 1, 1, 2], "refinement_blocks": 1, "heads": [1, 2, 2, 4], "expansion": 2.0}
        | {"bias": True, "norm_bias": False},
    ),
    "deblurgan-v2-mobilenet": Official(
        "deblurgan_v2", {"backbone": "mobilenet", "norm": "instance"}, size=(128, 160), every=3
    ),
    "deblurgan-v2-mobilenet-batch": Official(
        "deblurgan_v2", {"backbone": "mobilenet", "norm": "batch"}, size=(128, 160), every=3
    ),
    "deblurgan-v2-inception": Official(
        "deblurgan_v2", {"backbone": "inception", "norm": "instance"}, size=(128, 256), every=3
    ),
}


def largest_difference(name: str, kind: str, size: tuple[int, int], *, every: int = 1, **options: Any) -> float:
    """Return the largest difference between our output and that of the official code, both in float64."""
    match = recognise(seeded_state(name), Path(name))
    if name in OFFICIAL:
        assert (match.network, match.options) == (OFFICIAL[name].network, OFFICIAL[name].options)
    generator = create_generator(match.network, **match.options, **options)
    generator.load_state_dict(match.state)
    generator.double().eval()
    with torch.inference_mode():
        output = generator(seeded_input(*size, generator.pixel_range[0]).double())
    return float((output[:, :, ::every, ::every] - official_output(name, kind)).abs().max())


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_state_dicts_load_strictly_and_give_the_official_output(name: str) -> None:
    official = OFFICIAL[name]
    assert largest_difference(name, "output", official.size, every=official.every) < 1e-6


def test_nafnet_pools_over_windows_as_the_official_code_does() -> None:
    """TLC with a window of 24 pixels on a frame of 56x20: one side is longer than the window, one is shorter."""
    assert largest_difference("nafnet-small", "output", (24, 32)) < 1e-6
    assert largest_difference("nafnet-small", "pooled", (56, 20), pooling_px=24) < 1e-6
    assert largest_difference("nafnet-small", "pooled", (56, 20)) > 1e-5  # the whole frame is another result


def test_deblurgan_v2_uses_the_moving_averages_if_asked_to() -> None:
    name = "deblurgan-v2-mobilenet"
    assert largest_difference(name, "trained", (128, 160), every=3, statistics="trained") < 1e-6
    assert largest_difference(name, "trained", (128, 160), every=3, statistics="frame") > 1e-2


def write_small(path: Path, wrap: Any = lambda state: state) -> dict[str, torch.Tensor]:
    state = seeded_state("nafnet-small")
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(wrap(state), path)
    return state


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("plain.pth", lambda state: state),
        ("params.pth", lambda state: {"params": state}),
        ("ema.pth", lambda state: {"params": dict.fromkeys(state, torch.zeros(1)), "params_ema": state}),
        ("module.h5", lambda state: {"model": {f"module.{key}": value for key, value in state.items()}}),
        ("run.ckpt", lambda state: {"epoch": 3, "state_dict": state}),
        ("half.pt", lambda state: {key: value.half() for key, value in state.items()}),
        ("weights.safetensors", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_are_found_inside_what_projects_put_around_them(name: str, wrap: Any, tmp_path: Path) -> None:
    state = write_small(tmp_path / name, wrap)
    generator, settings = load_generator(tmp_path / name)
    assert is_published(tmp_path / name)
    assert settings["generator"] == "nafnet"
    tolerance = 1e-3 if name.startswith("half") else 0
    for key, value in generator.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=tolerance, atol=tolerance)


class Code:
    """An object whose pickle runs a command when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch ran",))


def write_code(path: Path) -> None:
    torch.save({"params": seeded_state("nafnet-small"), "optimizer": Code()}, path)


def write_module(path: Path) -> None:
    torch.save(create_generator("edge", widths=(8,), blocks=(1,)), path)


def write_plain_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Code()))


def write_without_a_key(path: Path) -> None:
    state = seeded_state("nafnet-small")
    del state["ending.weight"]
    torch.save(state | {"extra.bias": torch.zeros(1)}, path)


def write_other_shape(path: Path) -> None:
    torch.save(seeded_state("nafnet-small") | {"ending.bias": torch.zeros(4)}, path)


REFUSED = {
    "code": (write_code, r"wants to run code when it is loaded \(posix.system\): .*torch\.save"),
    "module": (write_module, r"wants to run code when it is loaded \(.*Edge\)"),
    "plain pickle": (write_plain_pickle, "no weights of PyTorch"),
    "missing key": (
        write_without_a_key,
        r"of no known network \(nearest nafnet: 1 missing: ending.weight; 1 unexpected: extra.bias\)",
    ),
    "other shape": (write_other_shape, "nearest nafnet: 1 of another shape: ending.bias"),
    "other network": (lambda path: torch.save({"conv.weight": torch.zeros(3)}, path), "of no known network"),
    "no tensors": (lambda path: torch.save({"epoch": 3}, path), "holds no state dict"),
    "a list": (lambda path: torch.save([1, 2], path), "holds no state dict"),
    "NaN": (
        lambda path: torch.save(seeded_state("nafnet-small") | {"ending.bias": torch.full((3,), torch.nan)}, path),
        "NaN or infinite",
    ),
    "text": (lambda path: path.write_text("<html>"), "no weights of PyTorch or safetensors, or damaged"),
    "empty": (lambda path: path.write_bytes(b""), "no weights of PyTorch or safetensors, or damaged"),
    "missing": (lambda path: None, r"cannot be read \(No such file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_files_are_refused_in_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write, words = REFUSED[kind]
    write(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=words) as refusal:
        load_generator(tmp_path / "weights.pth")
    assert refusal.value.exit_code == 4
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_safetensors_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(CheckpointError, match="damaged"):
        load_generator(tmp_path / "weights.safetensors")


def test_the_named_network_and_its_options_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    write_small(path)
    with pytest.raises(CheckpointError, match=r"weights are not of edge \(nearest edge: "):
        load_generator(path, network="edge")
    with pytest.raises(UsageError, match="pooling_px must be 0 or at least 4"):
        load_generator(path, options={"pooling_px": 1})
    with pytest.raises(UsageError, match="unexpected keyword argument 'pooling'"):
        load_generator(path, options={"pooling": 1})
    generator, settings = load_generator(path, network="nafnet", options={"pooling_px": 64})
    assert settings["options"]["pooling_px"] == 64
    assert generator.middle_blks[0].sca[0].window == 16


def test_training_takes_network_and_sizes_from_the_weights(tmp_path: Path) -> None:
    write_small(tmp_path / "weights.pth")
    for network in (None, "nafnet"):
        recipe = build_recipe("edge-s", generator=network, init=str(tmp_path / "weights.pth"))
        assert recipe.generator == "nafnet"
        assert recipe.options == recognise(seeded_state("nafnet-small"), tmp_path).options
    with pytest.raises(CheckpointError, match="weights are not of edge"):
        build_recipe("edge-s", generator="edge", init=str(tmp_path / "weights.pth"))


def test_a_run_starts_from_published_weights_and_learns_from_them(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    state = write_small(path)
    arguments = ["--network", "nafnet", "--init", str(path), "--teacher", str(path), "--data", str(photos)]
    for setting in ("data.size_px=(32, 32)", "data.crops=12", "batch=4", "epochs=1", "workers=0", "learning_rate=0.0"):
        arguments += ["--set", setting]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    generator, settings = load_generator(tmp_path / "run")
    assert settings["generator"] == "nafnet"
    for key, value in generator.state_dict().items():
        torch.testing.assert_close(value, state[key])
    assert read_log(tmp_path / "run")[0]["train/distillation_loss"] == pytest.approx(0, abs=0.02)  # bfloat16 or float32


def test_published_networks_are_generators() -> None:
    assert set(PUBLISHED_NETWORKS) <= GENERATORS.keys()
