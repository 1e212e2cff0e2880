"""Training resumes with the same bits, keeps the last good state, and refuses wrong input."""

from __future__ import annotations

import dataclasses
import errno
import gc
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import safetensors.torch
import torch

from runtime.errors import OutputError, UsageError
from runtime.files import write_whole
from tests.conftest import ROOT, make_image
from tests.train.conftest import lpips_file
from train import checkpoint
from train.__main__ import main
from train.checkpoint import load_generator, load_recipe, load_state, save_state
from train.command import run_command
from train.config import Recipe, apply_overrides
from train.errors import CheckpointError, DataError, DivergedError, InterruptedRunError
from train.evaluate.__main__ import main as evaluate
from train.models import create_generator
from train.recipes import RECIPES
from train.training.loop import train
from train.training.run_log import read_log
from train.training.step import Step

SMALL = [
    "options={'widths': (8,), 'blocks': (1,)}",
    "data.size_px=(32, 32)",
    "data.crops=12",
    "batch=4",
    "epochs=3",
    "warmup_steps=2",
    "save_steps=2",
    "workers=0",
]
ADVERSARIAL = [
    "generator=edge",
    *SMALL,
    "data.view=crop",
    "data.size_px=(64, 64)",
    "data.rotation_deg=10.0",
    "normalisation=instance",
    "warmup_steps=0",
]


def small(*overrides: str) -> Recipe:
    """Return the recipe `edge-s` with a small network and three epochs of three steps."""
    return apply_overrides(RECIPES["edge-s"], [*SMALL, *overrides])


def adversarial(*overrides: str) -> Recipe:
    """Return the two-stage recipe with a small generator and crops."""
    return apply_overrides(RECIPES["two_stage"], [*ADVERSARIAL, *overrides])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_generator(run)[0].state_dict()


def same_state(first: Path, second: Path) -> bool:
    """Whether two runs ended with equal bits in every network, optimizer, schedule and average."""

    def flat(value: object) -> list[object]:
        if isinstance(value, dict):
            return [part for key in value for part in (key, *flat(value[key]))]
        if isinstance(value, (list, tuple)):
            return [part for item in value for part in flat(item)]
        return [value.numpy().tobytes() if isinstance(value, torch.Tensor) else value]

    return flat(load_state(first)[0]) == flat(load_state(second)[0])


class KilledError(Exception):
    pass


def train_and_die(recipe: Recipe, *, data: list[Path], run: Path, in_step: int, resume: bool = False) -> None:
    """Train until an exception ends a step, counted from here, before the weights change."""
    original, calls = Step.__call__, []

    def call(self: Step, *images: torch.Tensor, completed: int) -> object:
        calls.append(1)
        if len(calls) == in_step:
            raise KilledError
        return original(self, *images, completed=completed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", call)
        with pytest.raises(KilledError):
            train(recipe, data=data, run=run, resume=resume)


def test_progressive_training_begins_with_small_squares_and_resumes_there(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["data.progressive=((0.3, 16), (0.6, 32))", "data.size_px=(64, 64)", "data.blur.length_px=(0, 4)"]
    recipe = small("precision=fp32", *sizes)
    original, shapes = Step.__call__, []

    def call(self: Step, *images: torch.Tensor, completed: int) -> object:
        shapes.append([tuple(image.shape) for image in images])
        return original(self, *images, completed=completed)

    monkeypatch.setattr(Step, "__call__", call)
    train(recipe, data=[photos], run=tmp_path / "whole")
    assert shapes == [[(4 * (64 // side) ** 2, 3, side, side)] * 2 for side in [16] * 3 + [32] * 3 + [64] * 3]
    monkeypatch.setattr(Step, "__call__", original)
    train_and_die(recipe, data=[photos], run=tmp_path / "broken", in_step=3)
    train(recipe, data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize(
    "recipe",
    [small("precision=bf16"), small("precision=fp32"), adversarial(), adversarial("losses.adversarial_kind=wgan_gp")],
    ids=["edge bf16", "edge fp32", "two_stage", "wgan_gp"],
)
def test_resumed_run_ends_with_the_same_bits(recipe: Recipe, photos: Path, tmp_path: Path) -> None:
    train(recipe, data=[photos], run=tmp_path / "whole")
    train_and_die(recipe, data=[photos], run=tmp_path / "broken", in_step=6)
    train_and_die(recipe, data=[photos], run=tmp_path / "broken", in_step=2, resume=True)
    train(recipe, data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "broken")
    first, second = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = [read_log(tmp_path / name) for name in ("whole", "broken")]
    assert [line["step"] for line in lines[0]] == [3, 6, 9]
    for line in (*lines[0], *lines[1]):
        del line["images_per_second"]
    assert lines[0] == lines[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_resumed_run_ends_with_the_same_bits_after_kill_9_at_any_moment(photos: Path, tmp_path: Path) -> None:
    """Kill a process with workers several times, also in the middle of a save."""
    overrides = [text for override in [*SMALL, "epochs=6", "save_steps=1", "workers=1"] for text in ("--set", override)]
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def command(run: Path) -> list[str]:
        return [sys.executable, "-m", "train", "--data", str(photos), "--out", str(run), *overrides, "--resume"]

    assert subprocess.run(command(whole)[:-1], cwd=ROOT, capture_output=True, check=False).returncode == 0
    kills = 0
    for delay in (0.0, 0.013, 0.031, 0.05, 0.1, 0.2):
        arguments = command(broken) if checkpoint.has_state(broken) else command(broken)[:-1]
        step_before = load_state(broken)[0]["step"] if checkpoint.has_state(broken) else 0
        process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            if checkpoint.has_state(broken) and load_state(broken)[0]["step"] > step_before:
                time.sleep(delay)
                process.kill()
                process.wait()
                kills += 1
    subprocess.run(command(broken), cwd=ROOT, capture_output=True, check=True)
    assert kills >= 3
    assert same_state(whole, broken)


def test_a_signal_saves_the_state_and_says_how_to_resume(photos: Path, tmp_path: Path) -> None:
    recipe = small("save_steps=1000")
    train(recipe, data=[photos], run=tmp_path / "whole")
    original = Step.__call__

    def call(self: Step, *images: torch.Tensor, completed: int) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *images, completed=completed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", call)
        with pytest.raises(InterruptedRunError, match="stopped after step 1; go on with --resume") as stop:
            train(recipe, data=[photos], run=tmp_path / "stopped")
    assert stop.value.exit_code == 143
    train(recipe, data=[photos], run=tmp_path / "stopped", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_is_not_overwritten_and_not_resumed_with_other_settings_or_images(
    photos: Path, gopro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = small("epochs=1")
    train(recipe, data=[photos], run=tmp_path)
    capsys.readouterr()
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(UsageError, match="holds a run already"):
        train(recipe, data=[photos], run=tmp_path)
    with pytest.raises(UsageError, match="seed was 0"):
        train(dataclasses.replace(recipe, seed=1), data=[photos], run=tmp_path, resume=True)
    with pytest.raises(UsageError, match=r"the run \(data\.crops was 12\)"):
        train(small("epochs=1", "data.crops=16"), data=[photos], run=tmp_path, resume=True)
    with pytest.raises(UsageError, match="generator was 'edge'"):
        train(
            dataclasses.replace(recipe, generator="two_stage_cnn", options={}), data=[photos], run=tmp_path, resume=True
        )
    assert capsys.readouterr().out == ""  # refused before images are looked at
    with pytest.raises(UsageError, match="images are not those"):
        train(recipe, data=[gopro], run=tmp_path, resume=True)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_files_of_others_in_the_folder_of_a_run_stay(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "movie.partial.mp4").write_text("mine")
    train(small("max_steps=1"), data=[photos], run=tmp_path)
    assert (tmp_path / "movie.partial.mp4").read_text() == "mine"
    for path in tmp_path.glob("state*.pt"):
        path.unlink()
    with pytest.raises(UsageError, match="holds a network already"):
        train(small("max_steps=1"), data=[photos], run=tmp_path)


def test_an_infinite_validation_loss_ends_the_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="validation loss is not finite"):
        train(small("max_steps=1", "optimizer=adamw", "weight_decay=1e30"), data=[photos], run=tmp_path)


def test_weights_that_are_not_finite_are_refused(photos: Path, tmp_path: Path) -> None:
    train(small("max_steps=1"), data=[photos], run=tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "generator.safetensors")
    next(iter(weights.values())).fill_(float("nan"))
    safetensors.torch.save_file(weights, tmp_path / "generator.safetensors")
    with pytest.raises(CheckpointError, match="weights are not finite numbers"):
        load_generator(tmp_path)


def test_a_finished_run_says_so(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = small("epochs=1", "max_steps=1")
    train(recipe, data=[photos], run=tmp_path)
    capsys.readouterr()
    train(recipe, data=[photos], run=tmp_path, resume=True)
    assert capsys.readouterr().out.endswith("all 1 steps are done; raise --epochs or --max-steps to go on\n")


def test_a_resumed_run_with_a_pretrained_encoder_ends_with_the_same_bits(photos: Path, tmp_path: Path) -> None:
    """Pretrained encoders arrive in eval mode, in which their batch statistics would not change."""
    create_generator("resnet_unet", size="18", width=8).encoder.save_pretrained(tmp_path / "encoder")
    options = {"size": "18", "width": 8, "pretrained": str(tmp_path / "encoder")}
    recipe = dataclasses.replace(small("ema_decay=0.9"), generator="resnet_unet", options=options)
    train(recipe, data=[photos], run=tmp_path / "whole")
    train_and_die(recipe, data=[photos], run=tmp_path / "broken", in_step=6)
    train(recipe, data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "broken")
    before, after = create_generator("resnet_unet", **options).state_dict(), load_state(tmp_path / "whole")[0]
    name = next(name for name in before if name.endswith("running_mean"))
    assert not torch.equal(before[name], after["generator"][name])


def test_two_processes_do_not_train_in_one_folder(photos: Path, tmp_path: Path) -> None:
    with checkpoint.lock_run(tmp_path), pytest.raises(UsageError, match="another process trains in this folder"):
        train(small(), data=[photos], run=tmp_path)
    train(small("epochs=1"), data=[photos], run=tmp_path)


def test_a_run_is_not_resumed_with_another_number_of_processes(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1"), data=[photos], run=tmp_path)
    state = load_state(tmp_path)[0] | {"processes": 4}
    save_state(state, tmp_path)
    with pytest.raises(UsageError, match="the run has 4 processes, not 1"):
        train(small("epochs=2"), data=[photos], run=tmp_path, resume=True)


def test_a_finished_run_can_be_given_more_epochs(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1", "schedule=constant"), data=[photos], run=tmp_path / "more")
    train(small("epochs=3", "schedule=constant"), data=[photos], run=tmp_path / "more", resume=True)
    train(small("epochs=3", "schedule=constant"), data=[photos], run=tmp_path / "once")
    first, second = weights(tmp_path / "more"), weights(tmp_path / "once")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_max_steps_end_a_run_within_an_epoch(photos: Path, tmp_path: Path) -> None:
    train(small("max_steps=4"), data=[photos], run=tmp_path)
    assert [(line["epoch"], line["step"]) for line in read_log(tmp_path)] == [(1, 3), (2, 4)]


def test_the_best_epoch_is_published_and_a_run_without_progress_stops_early(photos: Path, tmp_path: Path) -> None:
    """With a learning rate that destroys the network, the first epoch stays the best."""
    recipe = small("epochs=20", "early_stopping_epochs=2", "ema_decay=0.0", "gradient_clip=0.0", "precision=fp32")
    recipe = dataclasses.replace(recipe, schedule="constant", warmup_steps=3, learning_rate=0.3)
    train(recipe, data=[photos], run=tmp_path)
    losses = [line["validation/content_loss"] for line in read_log(tmp_path)]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 20
    published = weights(tmp_path)
    last = load_state(tmp_path)[0]["generator"]
    assert any(not torch.equal(published[name], last[name]) for name in published)


def test_an_adversarial_run_publishes_its_last_epoch_and_the_report_names_it(photos: Path, tmp_path: Path) -> None:
    """The validation loss has no adversarial part, so that its best epoch would be a choice against the adversary."""
    train(adversarial("learning_rate=0.05", "keep_every_epochs=2"), data=[photos], run=tmp_path)
    log = read_log(tmp_path)
    losses = [line["validation/content_loss"] for line in log]
    assert losses.index(min(losses)) < 2, "the best epoch is not the last one"
    assert [line["is_published"] for line in log] == [True] * 3
    last = load_state(tmp_path)[0]["generator"]
    assert all(torch.equal(weight, last[name]) for name, weight in weights(tmp_path).items())
    assert not all(torch.equal(weight, last[name]) for name, weight in weights(tmp_path / "epoch_0002").items())
    assert sorted(path.name for path in tmp_path.glob("epoch_*")) == ["epoch_0002"]


@pytest.mark.parametrize(
    ("publish", "score", "best"),
    [("best:psnr_db", "psnr_db", max), ("best:ssim", "ssim", max), ("best:lpips", "lpips", min)],
)
def test_the_published_epoch_is_the_best_by_the_chosen_score(
    publish: str, score: str, best: Callable[[list[float]], float], photos: Path, tmp_path: Path
) -> None:
    lpips_file(tmp_path / "lpips.safetensors")
    recipe = adversarial(
        "learning_rate=0.02", f"publish={publish}", f"losses.lpips_weights={tmp_path}/lpips.safetensors"
    )
    train(recipe, data=[photos], run=tmp_path / "run")
    log = read_log(tmp_path / "run")
    scores = [line[f"validation/{score}"] for line in log]
    published = max(index for index, line in enumerate(log) if line["is_published"])
    assert scores[published] == best(scores)
    assert all("validation/lpips" in line for line in log)


def test_the_state_of_a_run_can_be_used_as_a_checkpoint(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1"), data=[photos], run=tmp_path / "average")
    train(adversarial("epochs=1"), data=[photos], run=tmp_path / "plain")
    for name in ("average", "plain"):
        run = tmp_path / name
        latest, config = load_generator(run / "state.pt")
        assert config == load_generator(run)[1]
        assert load_recipe(run / "state.pt") == load_recipe(run)
        assert all(torch.equal(weight, weights(run)[key]) for key, weight in latest.state_dict().items())
        (run / "state.pt").write_bytes(b"junk")
        with pytest.raises(CheckpointError, match="no training state"):
            load_generator(run / "state.pt")


def test_a_state_without_settings_of_later_versions_is_resumed(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1"), data=[photos], run=tmp_path)
    state, _ = load_state(tmp_path)
    recipe = json.loads(state["recipe"])
    del recipe["publish"], recipe["keep_every_epochs"]
    save_state(state | {"recipe": json.dumps(recipe)}, tmp_path)
    train(small("epochs=2"), data=[photos], run=tmp_path, resume=True)
    assert [line["epoch"] for line in read_log(tmp_path)] == [1, 2]


@pytest.mark.parametrize("damage", ["no weights", "truncated", "other network", "no config", "junk config"])
def test_damaged_published_weights_are_refused_in_one_line(damage: str, photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1"), data=[photos], run=tmp_path)
    published, config = tmp_path / "generator.safetensors", tmp_path / "config.json"
    if damage == "no weights":
        published.unlink()
    elif damage == "truncated":
        published.write_bytes(published.read_bytes()[:500])
    elif damage == "other network":
        config.write_text(config.read_text().replace('"blocks": [\n      1', '"blocks": [\n      2'))
    elif damage == "no config":
        config.unlink()
    else:
        config.write_text("{")
    with pytest.raises(CheckpointError) as refusal:
        load_generator(tmp_path)
    assert str(tmp_path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


class Malicious:
    """An object whose pickle runs a command."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch ran",))


def junk(path: Path) -> None:
    path.write_bytes(b"junk")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        lambda path: torch.save({"step": 9, "generator": Malicious()}, path),
        lambda path: path.unlink(),
    ],
    ids=["zero", "truncated", "malicious pickle", "missing"],
)
def test_a_damaged_state_is_replaced_by_the_one_before(
    damage: Callable[[Path], object], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = small()
    train(recipe, data=[photos], run=tmp_path / "whole")
    train_and_die(recipe, data=[photos], run=tmp_path / "run", in_step=6)
    damage(tmp_path / "run" / "state.pt")
    train(recipe, data=[photos], run=tmp_path / "run", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "run")
    for name in ("state.pt", "state.previous.pt"):
        damage(tmp_path / "run" / name)
    with pytest.raises(CheckpointError, match=r"restore one, or give another --out|no saved state"):
        train(recipe, data=[photos], run=tmp_path / "run", resume=True)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_keeps_the_old_state_and_leaves_no_other_files(disk: Callable[[int], Path]) -> None:
    run = disk(300)
    save_state({"step": 1, "x": torch.zeros(30_000)}, run)
    with pytest.raises(OutputError, match="No space left"):
        save_state({"step": 2, "x": torch.zeros(60_000)}, run)
    assert load_state(run)[0]["step"] == 1
    assert sorted(path.name for path in run.iterdir()) == ["state.pt"]


def test_incomplete_files_of_a_killed_save_are_removed(photos: Path, tmp_path: Path) -> None:
    for name in ("state.next.pt", "state.next.partial.pt", "generator.partial.safetensors"):
        junk(tmp_path / name)
    train(small("epochs=1"), data=[photos], run=tmp_path)
    assert not [path.name for path in tmp_path.iterdir() if "next" in path.name or "partial" in path.name]


def test_steps_with_nan_losses_are_skipped_and_too_many_end_the_run(photos: Path, tmp_path: Path) -> None:
    """A few such steps are skipped and counted; twenty in a row end the run, and the good weights stay."""
    recipe = small("epochs=30", "save_steps=1000")
    original, bad = Step.__call__, {2, 4, *range(10, 90)}
    calls: list[int] = []

    def call(self: Step, blurred: torch.Tensor, sharp: torch.Tensor, *, completed: int) -> object:
        calls.append(1)
        factor = float("nan") if len(calls) in bad else 1.0
        return original(self, blurred * factor, sharp, completed=completed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", call)
        with pytest.raises(DivergedError, match="no finite gradient in 20 steps up to step 29"):
            train(recipe, data=[photos], run=tmp_path)
    lines = read_log(tmp_path)
    assert [line["skipped_steps"] for line in lines[:4]] == [1, 1, 0, 3]
    assert all(value == value for line in lines[:3] for value in line.values())  # noqa: PLR0124 - not NaN
    assert all(value.isfinite().all() for value in weights(tmp_path).values())


def test_batch_statistics_that_are_nan_are_never_saved(photos: Path, tmp_path: Path) -> None:
    recipe = adversarial("epochs=2", "generator=two_stage_cnn", "options={}")
    train(recipe, data=[photos], run=tmp_path)
    before = (tmp_path / "state.pt").read_bytes()
    original = Step.__call__

    def call(self: Step, blurred: torch.Tensor, sharp: torch.Tensor, *, completed: int) -> object:
        return original(self, blurred * float("nan"), sharp, completed=completed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "__call__", call)
        with pytest.raises(DivergedError, match="weights of the generator are not finite at step 8"):
            train(dataclasses.replace(recipe, epochs=9), data=[photos], run=tmp_path, resume=True)
    assert (tmp_path / "state.pt").read_bytes() == before


def test_every_epoch_is_logged_on_the_terminal_in_a_file_and_for_tensorboard(
    gopro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(adversarial("epochs=2", "data.rotation_deg=0.0", "log_steps=2"), data=[gopro], run=tmp_path)
    lines = read_log(tmp_path)
    expected = {f"train/{name}" for name in ("generator_loss", "content_loss", "adversarial_loss", "psnr_db", "ssim")}
    expected |= {
        f"validation/{name}" for name in ("content_loss", "psnr_db", "ssim", "blurred_psnr_db", "blurred_ssim")
    }
    expected |= {"train/discriminator_loss", "learning_rate/generator", "learning_rate/discriminator"}
    expected |= {f"train/{name}" for name in ("real_output", "fake_output", "mse_loss", "ssim_loss")}
    expected |= {f"train/{name}_gradient_norm" for name in ("generator", "discriminator")}
    expected |= {"images_per_second", "skipped_steps"}
    assert set(lines[0]) == expected | {"epoch", "step", "is_published"}
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    of_steps = {name.replace("train/", "steps/") for name in expected if name.startswith("train/")}
    of_steps -= {"steps/psnr_db", "steps/ssim"}
    assert set(events.Tags()["scalars"]) == expected | of_steps
    assert [event.step for event in events.Scalars("steps/ssim_loss")] == [2, 4, 6]
    assert [event.step for event in events.Scalars("train/psnr_db")] == [line["step"] for line in lines]
    printed = capsys.readouterr()
    assert "epoch 2, step 6: loss" in printed.out + printed.err
    assert 10 < lines[0]["validation/psnr_db"] < 60


def test_resuming_removes_log_entries_of_steps_that_are_repeated(tmp_path: Path, photos: Path) -> None:
    recipe = small()
    train(recipe, data=[photos], run=tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "step": 12}\n{"epoch": 5, "st')
    train(dataclasses.replace(recipe, epochs=4), data=[photos], run=tmp_path, resume=True)
    assert [line["step"] for line in read_log(tmp_path)] == [3, 6, 9, 12]


def test_worker_processes_read_the_same_images(gopro: Path, tmp_path: Path) -> None:
    recipe = apply_overrides(RECIPES["edge-s"], [*SMALL, "data.view=resize", "data.quarter_turns=False", "epochs=1"])
    for workers in (0, 2):
        train(dataclasses.replace(recipe, workers=workers), data=[gopro], run=tmp_path / str(workers))
    first, second = weights(tmp_path / "0"), weights(tmp_path / "2")
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--data", "{tmp}/none"], 3, "no such folder"),
        (["--data", "{empty}"], 3, "found 0 images"),
        (["--data", "{photos}", "--set", "epochs=0"], 2, "epochs must be at least 1"),
        (["--data", "{photos}", "--max-steps", "0"], 2, "max_steps must be at least 1"),
        (["--data", "{photos}", "--set", "nonsense=1"], 2, "nonsense"),
        (["--data", "{photos}", "--set", "generator=swin"], 2, "known: deblurgan_v2, edge"),
        (["--data", "{photos}", "--device", "nonsense"], 2, "no such device"),
        (["--data", "{photos}", "--set", "losses.adversarial=0.1"], 2, "needs 64 pixels"),
        (["--data", "{photos}", "--resume"], 4, "no saved state to resume from"),
        (["--data", "{photos}", "--out", "{broken}/0.png"], 6, "exists"),
        (["--data", "{broken}"], 3, "3 problems with the images"),
        (["--data", "{small}"], 3, "3 problems with the images"),
        (["--data", "{photos}", "--set", "losses.lpips=1", "--set", "losses.lpips_weights=none.pth"], 2, "none.pth"),
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
    for name in ("broken", "small", "empty"):
        (tmp_path / name).mkdir()
    for index in range(3):
        (tmp_path / "broken" / f"{index}.png").write_bytes(b"junk")
        cv2.imwrite(str(tmp_path / "small" / f"{index}.png"), make_image(20, 20))
    values = {"tmp": tmp_path, "photos": photos} | {name: tmp_path / name for name in ("broken", "small", "empty")}
    arguments = [argument.format(**values) for argument in extra]
    overrides = [text for override in SMALL for text in ("--set", override)]
    monkeypatch.setattr("sys.argv", ["train", "--out", str(tmp_path / "run"), *overrides, *arguments])
    assert main() == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert words in line


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 7, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), 7, "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), 7, "--set batch=N"),
        (DataError("image is cut off", "x.png", hint="remove it"), 3, "cut off: x.png"),
        (DivergedError("weights are not finite", "run", hint="start again"), 8, "not finite"),
        (OSError(errno.ENOSPC, "No space left on device", "run/log.jsonl"), 6, "No space left on device): run/log"),
        (RuntimeError("shape mismatch"), 1, "this is a bug (RuntimeError: shape mismatch)"),
        (ValueError("shape mismatch"), 1, "this is a bug (ValueError: shape mismatch)"),
    ],
)
def test_every_exception_has_an_exit_code_and_one_line(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(_: object) -> None:
        raise error

    assert run_command(command) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_signal_before_the_first_step_ends_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda _: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "interrupted\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def command(_: object) -> None:
        raise RuntimeError("shape mismatch")

    assert run_command(command, debug=True) == 1
    assert "in command" in capsys.readouterr().err


def test_an_image_that_a_worker_process_cannot_read_ends_the_run_with_one_line(
    gopro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is damaged after the check, so that a worker process finds it."""
    shutil.copytree(gopro, tmp_path / "data")
    overrides = [*SMALL, "data.view=resize", "data.quarter_turns=False", "epochs=1", "workers=1"]
    sets = [text for override in overrides for text in ("--set", override)]
    arguments = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run"), *sets]
    monkeypatch.setattr("train.training.loaders.check_images", lambda *_, **__: None)
    for path in (tmp_path / "data" / "train" / "GOPR02" / "blur").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    others = set(multiprocessing.active_children())  # of other tests
    gc.disable()  # the error holds the frames of the run until Python collects them: that must not keep workers alive
    try:
        assert main(arguments) == 3
        assert not set(multiprocessing.active_children()) - others
    finally:
        gc.enable()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "image is cut off" in line


def test_an_error_of_one_process_can_be_sent_to_another() -> None:
    for error in (DataError("bad", "x.png", hint="remove it"), CheckpointError("none", hint="train again")):
        received = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
        assert (type(received), str(received), received.hint) == (type(error), str(error), error.hint)


def test_a_file_is_replaced_as_a_whole_and_its_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut either the old or the new content is there: the file is synced first, then its folder."""
    path, synced = tmp_path / "state.pt", []
    path.write_bytes(b"old")
    sync = os.fsync

    def record(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), path.read_bytes()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_whole(path, b"new")
    assert synced == [(tmp_path / "state.partial.pt", b"old"), (tmp_path, b"new")]


def test_init_takes_the_weights_of_another_run(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1"), data=[photos], run=tmp_path / "first")
    train(small("epochs=1", "learning_rate=0.0", f"init={tmp_path / 'first'}"), data=[photos], run=tmp_path / "second")
    first, second = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(first[name], second[name]) for name in first)
    shutil.rmtree(tmp_path / "first")  # a resumed run no longer needs it
    train(
        small("epochs=1", "learning_rate=0.0", f"init={tmp_path / 'first'}"),
        data=[photos],
        run=tmp_path / "second",
        resume=True,
    )


def test_only_the_chosen_parts_are_trained_and_the_run_resumes(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1"), data=[photos], run=tmp_path / "first")
    parts = ("epochs=1", f"init={tmp_path / 'first'}", "trained_parts=('tail', 'body.before.0.conv2')")
    train(small(*parts), data=[photos], run=tmp_path / "whole")
    before, after = weights(tmp_path / "first"), weights(tmp_path / "whole")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith(("tail.", "body.before.0.conv2."))}
    train_and_die(small(*parts), data=[photos], run=tmp_path / "broken", in_step=3)
    train(small(*parts), data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "broken")
    with pytest.raises(UsageError, match=r"no weight of edge begins with it: tial; give head, body, tail"):
        train(small("trained_parts=('tail', 'tial')"), data=[photos], run=tmp_path / "wrong")
    assert not (tmp_path / "wrong" / "state.pt").exists()


def test_half_init_is_the_beginning_of_the_pass_at_half_the_resolution(photos: Path, tmp_path: Path) -> None:
    full, half = "options={'widths': (8, 12), 'blocks': (1, 1)}", "options={'widths': (4,), 'blocks': (2,)}"
    for name, options in (("full", full), ("half", half)):
        train(small("epochs=1", options), data=[photos], run=tmp_path / name)
    inits = (f"init={tmp_path / 'full'}", f"half_init={tmp_path / 'half'}", "epochs=1", "learning_rate=0.0")
    passes = [f"options.half_{name}=({value},)" for name, value in (("widths", 4), ("blocks", 2))]
    train(small(full, "options.half_pass=True", *passes, *inits), data=[photos], run=tmp_path / "both")
    both, half_weights = weights(tmp_path / "both"), weights(tmp_path / "half")
    assert torch.equal(both["head.weight"], weights(tmp_path / "full")["head.weight"])
    assert torch.equal(both["coarse.trunk.head.weight"], half_weights["head.weight"])
    assert torch.equal(both["coarse.tail.bias"], half_weights["tail.bias"] / 2)
    with pytest.raises(CheckpointError, match="of another network"):
        train(small(full, "options.half_pass=True", *inits), data=[photos], run=tmp_path / "larger_pass")
    with pytest.raises(UsageError, match="half_init is for an edge network with half_pass"):
        train(small(full, *inits), data=[photos], run=tmp_path / "without_pass")
    with pytest.raises(UsageError, match="half_init is for an edge network with half_pass"):
        train(adversarial("generator=two_stage_cnn", "options={}", inits[1]), data=[photos], run=tmp_path / "other")


def test_weights_of_another_network_are_refused(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1"), data=[photos], run=tmp_path / "first")
    with pytest.raises(CheckpointError, match="of another network"):
        train(small("options.widths=(4,)", f"init={tmp_path / 'first'}"), data=[photos], run=tmp_path / "third")


def test_a_run_with_a_teacher_resumes_to_the_same_bits(photos: Path, tmp_path: Path) -> None:
    train(small("epochs=1", "options.widths=(16,)"), data=[photos], run=tmp_path / "teacher")
    recipe = small("epochs=1", f"teacher={tmp_path / 'teacher'}")
    train(recipe, data=[photos], run=tmp_path / "whole")
    train_and_die(recipe, data=[photos], run=tmp_path / "broken", in_step=3)
    train(recipe, data=[photos], run=tmp_path / "broken", resume=True)
    assert same_state(tmp_path / "whole", tmp_path / "broken")
    assert read_log(tmp_path / "whole")[0]["train/distillation_loss"] > 0
    train(small("epochs=1", "options.widths=(16,)", "seed=1"), data=[photos], run=tmp_path / "other")
    shutil.copy(tmp_path / "other" / "generator.safetensors", tmp_path / "teacher")
    with pytest.raises(UsageError, match="not the one that the run began with"):
        train(recipe, data=[photos], run=tmp_path / "broken", resume=True)


def test_folders_of_two_kinds_train_together_and_the_run_can_be_evaluated(
    photos: Path, gopro: Path, tmp_path: Path
) -> None:
    recipe = small("epochs=1", "data.shares=(1.0, 2.0)", "data.crops=24", "data.validation=test")
    train(recipe, data=[photos, gopro], run=tmp_path / "run")
    assert [line["step"] for line in read_log(tmp_path / "run")] == [6]
    arguments = ["--checkpoint", str(tmp_path / "run"), "--data", str(gopro), "--out", str(tmp_path / "report")]
    assert evaluate([*arguments]) == 0


def test_a_wrong_number_of_shares_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="2 shares for 1 folders"):
        train(small("data.shares=(1.0, 2.0)"), data=[photos], run=tmp_path)


def test_the_command_line_trains_and_prints_its_recipe_in_full(
    gopro: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ["data.size_px=(64, 64)", "options={'widths': (8,), 'blocks': (1,)}", "workers=0"]
    arguments = ["--recipe", "deblurgan_v2", "--generator", "edge", "--data", str(gopro), "--out", str(tmp_path)]
    sets = [text for override in overrides for text in ("--set", override)]
    monkeypatch.setattr("sys.argv", ["train", *arguments, *sets, "--max-steps", "2"])
    assert main() == 0
    printed = capsys.readouterr().out
    recipe = Recipe.from_json(printed[: printed.index("\n}") + 2])
    assert (recipe.generator, recipe.losses.adversarial_kind, recipe.max_steps) == ("edge", "bce_logits", 2)
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(recipe.to_json())
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2]
