"""Training: it learns, it resumes to the bit, and it refuses what it cannot use."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import picture
from train import loop
from train.__main__ import config_from, main
from train.blur import BlurConfig
from train.checkpoint import CheckpointError, load_generator, save_state
from train.config import TrainConfig
from train.data import Pairs, prepare
from train.loop import DivergedError, learning_rate, train
from train.metrics import psnr_db
from train.models import create_generator

SMALL = {
    "crops": 32,
    "crop_px": 32,
    "batch": 4,
    "report_every": 3,
    "warmup_steps": 2,
    "options": {"width": 8, "blocks": 1},
}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(4):
        photo, rng = picture(160, 120, seed=seed), np.random.default_rng(seed)
        for x, y, size, *colour in rng.integers(0, 120, (40, 6)).tolist():
            cv2.rectangle(photo, (x, y), (x + 8 + size // 8, y + 6 + size // 10), colour, -1)
        cv2.imwrite(str(folder / f"{seed}.png"), photo)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_generator(run)[0].state_dict()


def test_edge_has_the_size_and_reach_that_it_states() -> None:
    generator = create_generator("edge").eval()
    assert sum(p.numel() for p in generator.parameters()) == 374_112
    probe = torch.zeros(1, 3, 320, 320, requires_grad=True)
    generator(probe)[0, :, 160:164, 160:164].sum().backward()
    reached = probe.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (reached.max(0).values - reached.min(0).values + 1).tolist() == [148, 148]


def test_edge_is_alike_in_train_and_eval_mode_and_starts_near_the_input() -> None:
    torch.manual_seed(0)
    generator = create_generator("edge")
    frame = torch.rand(2, 3, 32, 40)
    with torch.inference_mode():
        assert torch.equal(generator.train()(frame), generator.eval()(frame))
        assert (generator(frame) - frame).abs().mean() < 0.05


@pytest.mark.parametrize(("name", "options"), [("edgy", {}), ("edge", {"width": 0})])
def test_unknown_networks_and_options_are_refused(name: str, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"known: edge|at least 1"):
        create_generator(name, **options)


def test_psnr_is_the_formula_on_rounded_values() -> None:
    sharp = torch.full((1, 3, 4, 4), 0.5)
    assert psnr_db(sharp + 10 / 255, sharp).item() == pytest.approx(20 * np.log10(255 / 10), abs=1e-4)
    assert psnr_db(sharp + 0.4 / 255, sharp).item() == float("inf")


def test_pairs_are_turned_alike(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    for name in ("blurred", "sharp"):
        np.save(tmp_path / f"{name}.npy", images)
    rows = np.arange(8)
    blurred, sharp = Pairs(tmp_path).batch(rows, rows)
    assert torch.equal(blurred, sharp)
    assert len({tensor.numpy().tobytes() for tensor in Pairs(tmp_path).batch(0 * rows, rows)[0]}) == 8


def test_data_is_split_cached_and_reproducible(photos: Path, tmp_path: Path) -> None:
    config = TrainConfig(**SMALL)
    training, validation = prepare(photos, tmp_path / "a", config)
    again, _ = prepare(photos, tmp_path / "b", config)
    assert np.array_equal(training.blurred, again.blurred)
    assert len(training) == 32
    assert len(validation) > 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.npy")}
    prepare(photos, tmp_path / "a", config)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.npy")}


def test_learning_rate_warms_up_and_follows_a_cosine() -> None:
    config = TrainConfig(steps=1100, warmup_steps=100, learning_rate=1.0)
    assert learning_rate(config, 50) == 0.5
    assert learning_rate(config, 100) == 1.0
    assert learning_rate(config, 600) == pytest.approx(0.5)
    assert learning_rate(config, 1100) == pytest.approx(0.0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_run_ends_with_the_same_bits(photos: Path, tmp_path: Path, precision: str) -> None:
    config = TrainConfig(**SMALL, steps=9, precision=precision)
    train(config, data=photos, run=tmp_path / "whole")

    class KilledError(Exception):
        pass

    original, calls = loop._step, []

    def step_then_die(*arguments: object, **options: object) -> float:
        calls.append(1)
        if len(calls) == 5:
            raise KilledError
        return original(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_step", step_then_die)
        with pytest.raises(KilledError):
            train(config, data=photos, run=tmp_path / "halved")
    train(config, data=photos, run=tmp_path / "halved", resume=True)
    whole, halved = weights(tmp_path / "whole"), weights(tmp_path / "halved")
    assert all(torch.equal(whole[name], halved[name]) for name in whole)
    steps = [json.loads(line)["step"] for line in (tmp_path / "halved" / "log.jsonl").read_text().splitlines()]
    assert steps == [3, 6, 9]


def test_a_run_is_neither_overwritten_nor_resumed_with_other_settings(photos: Path, tmp_path: Path) -> None:
    config = TrainConfig(**SMALL, steps=3)
    train(config, data=photos, run=tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(ValueError, match="a run is there already"):
        train(config, data=photos, run=tmp_path)
    with pytest.raises(ValueError, match="seed was 0"):
        train(dataclasses.replace(config, seed=1), data=photos, run=tmp_path, resume=True)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_it_learns(photos: Path, tmp_path: Path) -> None:
    """Eight crops with a short blur, learned by heart: the loss falls well below doing nothing."""
    torch.manual_seed(0)
    blur = BlurConfig(length_px=(3, 3), roll_deg=0, noise_sigma=0, jpeg_share=0)
    config = TrainConfig(**SMALL | {"crops": 8}, precision="fp32", blur=blur)
    pairs, _ = prepare(photos, tmp_path, config)
    blurred, sharp = pairs.batch(np.arange(8), np.zeros(8, np.int64))
    generator = create_generator("edge", width=48, blocks=2)
    optimizer = torch.optim.AdamW(generator.parameters())
    losses = [loop._step(config, generator, optimizer, blurred, sharp, step=step) for step in range(400)]
    assert losses[-1] < 0.8 * (blurred - sharp).abs().mean()


def test_published_weights_come_back(photos: Path, tmp_path: Path) -> None:
    train(TrainConfig(**SMALL, steps=3), data=photos, run=tmp_path)
    generator, config = load_generator(tmp_path)
    assert config["options"] == {"width": 8, "blocks": 1}
    assert not generator.training
    assert TrainConfig.from_json((tmp_path / "config.json").read_text()) == TrainConfig(**SMALL, steps=3)


@pytest.mark.parametrize("damage", ["no weights", "truncated", "other network", "no config", "junk config"])
def test_damaged_checkpoints_are_refused_in_one_line(photos: Path, tmp_path: Path, damage: str) -> None:
    train(TrainConfig(**SMALL, steps=3), data=photos, run=tmp_path)
    published, config = tmp_path / "generator.safetensors", tmp_path / "config.json"
    if damage == "no weights":
        published.unlink()
    elif damage == "truncated":
        published.write_bytes(published.read_bytes()[:500])
    elif damage == "other network":
        config.write_text(config.read_text().replace('"blocks": 1', '"blocks": 2'))
    elif damage == "no config":
        config.unlink()
    else:
        config.write_text("{")
    with pytest.raises(CheckpointError) as refusal:
        load_generator(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_failed_save_keeps_the_state_before(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    save_state({"step": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        save_state({"step": lambda: 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_loss_that_is_no_number_stops_the_run(photos: Path, tmp_path: Path) -> None:
    config = TrainConfig(**SMALL, steps=50, learning_rate=1e30, gradient_clip=1e30, precision="fp32")
    with pytest.raises(DivergedError, match="loss is"):
        train(config, data=photos, run=tmp_path)


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--data", "{tmp}/none"], 3, "0 photographs"),
        (["--data", "{photos}", "--set", "steps=0"], 2, "steps must be at least 1"),
        (["--data", "{photos}", "--set", "nonsense=1"], 2, "nonsense"),
        (["--data", "{photos}", "--set", "generator=swin"], 2, "known: edge"),
        (["--data", "{photos}", "--resume"], 4, "cannot be loaded"),
        (["--data", "{photos}", "--out", "{broken}/0.png"], 6, "File exists"),
        (["--data", "{broken}"], 3, "cannot be read as a picture"),
        (["--data", "{small}"], 3, "smaller than"),
    ],
)
def test_bad_input_gets_one_line_and_its_code(
    extra: list[str],
    code: int,
    words: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("broken", "small"):
        (tmp_path / name).mkdir()
        for index in range(3):
            cv2.imwrite(
                str(tmp_path / name / f"{index}.png"), picture(20, 20) if name == "small" else picture(200, 200)
            )
    for index in range(3):
        (tmp_path / "broken" / f"{index}.png").write_bytes(b"junk")
    values = {"tmp": tmp_path, "photos": photos, "broken": tmp_path / "broken", "small": tmp_path / "small"}
    arguments = [argument.format(**values) for argument in extra]
    small = [text for name, value in SMALL.items() for text in ("--set", f"{name}={value}")]
    monkeypatch.setattr("sys.argv", ["train", "--out", str(tmp_path / "run"), "--max-steps", "3", *small, *arguments])
    if "--set" in extra and "steps=0" in extra:
        monkeypatch.setattr("sys.argv", ["train", "--out", str(tmp_path / "run"), *small, *arguments])
    assert main() == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line


def test_overrides_reach_the_blur() -> None:
    config = config_from(["blur.length_px=(1, 5)", "precision=fp32", "batch=2"])
    assert (config.blur.length_px, config.precision, config.batch) == ((1, 5), "fp32", 2)
