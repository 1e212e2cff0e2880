"""The training loop: resumable to the bit, alone or on several ranks."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from train import checkpoint
from train.config import Recipe
from train.interrupt import InterruptedRunError, noted_signals
from train.metrics import psnr_db, ssim
from train.models import Generator, PatchGan, create_generator, planes
from train.models.patch_gan import LEAST_PX
from train.training.distributed import Ranks, join, leave
from train.training.loaders import Feed
from train.training.losses import ContentLoss
from train.training.lr_schedule import Schedule
from train.training.run_log import Log
from train.training.step import Step
from train.training.validation import validate

MAY_CHANGE = {"epochs", "max_steps", "early_stopping_epochs", "save_steps", "workers"}
"""Settings that a resumed run may be given anew."""
LOSSES = (
    "generator_loss",
    "content_loss",
    "distillation_loss",
    "feature_loss",
    "adversarial_loss",
    "discriminator_loss",
)
SCORES = ("psnr_db", "ssim")
SUMS = ("steps", "skipped_steps", *LOSSES, "pictures", *SCORES)
"""What is added up over an epoch: losses over `steps`, which are those not skipped, and scores over `pictures`."""
MOST_SKIPPED = 20
"""Steps in a row without a finite gradient that end a run."""
_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


LAUNCH = "launch.txt"
"""Says which torchrun the run belongs to."""


def launch_id() -> str:
    """The name that torchrun gives to a launch and its restarts; empty without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


class DivergedError(ArithmeticError):
    """Losses or weights are no longer numbers."""


def train(recipe: Recipe, *, data: Sequence[Path], run: Path, resume: bool = False, device: str = "cpu") -> None:
    """Train a generator, and with it a discriminator where the recipe's losses have one.

    Writes to `run`: `state.pt` and the one before it (for `resume`), `log.jsonl` and TensorBoard
    events (one entry an epoch), and the published `generator.safetensors` with `config.json`, of
    the epoch with the least validation loss. Under torchrun all ranks call it alike.

    `data`: folders of pictures; crops are made from each by `data.shares`.

    Raises ValueError if `run` holds a state and `resume` is not given, or if it is and settings
    or pictures differ; DataError for pictures that cannot be used; CheckpointError; DivergedError;
    InterruptedRunError after a signal.
    """
    if recipe.losses.adversarial and recipe.data.view != "whole" and min(recipe.data.size_px) < LEAST_PX:
        raise ValueError(f"the discriminator needs {LEAST_PX} pixels, data.size_px is {recipe.data.size_px}")
    ranks = join(device)
    try:
        if not resume and checkpoint.has_state(run):
            raise ValueError(f"a run is there already; add --resume, or give another --out: {run}")
        with checkpoint.locked(run) if ranks.first else nullcontext():
            if ranks.first:
                checkpoint.write_whole(run / LAUNCH, launch_id().encode())
            training = Training(recipe, data=data, run=run, ranks=ranks, anew=not resume)
            if resume:
                training.restore()
            training.go_on()
    finally:
        leave()


class Training:
    """Everything that a run consists of, and how it goes on."""

    def __init__(self, recipe: Recipe, *, data: Sequence[Path], run: Path, ranks: Ranks, anew: bool = True) -> None:
        """`anew`: begin with the weights of `recipe.init`, not with those that `restore` will bring."""
        self.recipe, self.run, self.ranks = recipe, run, ranks
        self.feed = Feed(recipe, data=data, run=run, ranks=ranks)
        self.teacher_hash = checkpoint.weights_hash(Path(recipe.teacher)) if recipe.teacher else ""
        self._build(anew=anew)
        self.step = 0
        self.sums = dict.fromkeys(SUMS, 0.0)
        """Over the steps of this epoch so far."""
        self.not_added: list[dict[str, Tensor]] = []
        """Losses that are not in the sums yet: to read one, a GPU has to finish what it was given."""
        self.best_loss, self.epochs_since_best = math.inf, 0

    def restore(self) -> None:
        """Go back to the newest saved state; raises ValueError if it is of another recipe or other pictures."""
        try:
            state, path = checkpoint.load_state(self.run)
            found = f"{path.name} of step {state['step']}"
        except checkpoint.CheckpointError as error:
            found = str(error)
        self.ranks.agree({"saved state": found})
        if found.startswith("no state"):
            raise checkpoint.CheckpointError(found)
        before, now = json.loads(state["recipe"]), json.loads(self.recipe.to_json())
        changed = {name: before.get(name) for name in now if now[name] != before.get(name)}
        if refused := ", ".join(f"{name} was {value!r}" for name, value in changed.items() if name not in MAY_CHANGE):
            raise ValueError(f"settings differ from those of the run ({refused}); give the same ones: {self.run}")
        if state["processes"] != self.ranks.count:
            raise ValueError(
                f"the run has {state['processes']} processes, not {self.ranks.count}; start as many: {self.run}"
            )
        if state["data_hash"] != self.feed.data_hash:
            raise ValueError(f"the pictures are not those that the run began with; bring them back: {self.run}")
        if self.ranks.first and path.name != checkpoint.STATE:
            tqdm.write(f"{checkpoint.STATE} cannot be loaded; going on from the state before, step {state['step']}")
        if state["teacher_hash"] != self.teacher_hash:
            raise ValueError(
                f"the teacher is not the one that the run began with; bring it back: {self.recipe.teacher}"
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.step = state["step"]
        self.best_loss, self.epochs_since_best = state["best_loss"], state["epochs_since_best"]
        if self.ranks.first:
            self.sums = state["sums"]

    def go_on(self) -> None:
        """Train until the last step, or until epochs get no better; raises DivergedError and InterruptedRunError."""
        alone = self.ranks.count == 1  # torchrun stops its processes itself
        with ExitStack() as opened:
            log = opened.enter_context(Log(self.run, from_step=self.step)) if self.ranks.first else None
            if log:
                tqdm.write(f"computing in {self.one_step.precision} on {self.ranks.device}")
            bar = tqdm(initial=self.step, total=self.feed.steps, unit="step", mininterval=2, disable=not log)
            opened.enter_context(bar)
            signals = opened.enter_context(noted_signals()) if alone else []
            seconds, first = time.monotonic(), self.step
            for batch in self.feed.training(start=self.step):
                if self._has_converged():
                    bar.write(f"no better validation loss for {self.epochs_since_best} epochs: stopping early")
                    break
                self._take_step(*(self._planes(frames) for frames in batch))
                bar.update()
                if self._is_last_of_epoch():
                    steps_per_second = (self.step - first) / (time.monotonic() - seconds)
                    line = self._end_epoch(images_per_second=steps_per_second * len(batch[0]) * self.ranks.count)
                    if log:
                        log.epoch(line)
                    seconds, first = time.monotonic(), self.step
                if signals or self._is_last_of_epoch() or self.step % self.recipe.save_steps == 0:
                    self._save()
                if signals:
                    sentence = f"stopped after step {self.step}; go on with --resume: {self.run}"
                    raise InterruptedRunError(sentence, signals[0])

    def _build(self, *, anew: bool) -> None:
        """Networks, optimizers and schedules; `parts` is all that has a state, by the name it is saved under."""
        recipe, ranks = self.recipe, self.ranks
        torch.manual_seed(recipe.seed)
        networks: dict[str, nn.Module] = {"generator": create_generator(recipe.generator, **recipe.options)}
        if recipe.init and anew:
            checkpoint.load_weights(networks["generator"], Path(recipe.init))
        teacher = checkpoint.load_generator(Path(recipe.teacher))[0].requires_grad_(False) if recipe.teacher else None
        if recipe.losses.adversarial:
            sigmoid = recipe.losses.adversarial_kind == "bce"
            networks["discriminator"] = PatchGan(sigmoid=sigmoid, normalisation=recipe.normalisation)
        if ranks.count > 1 and ranks.device.type == "cuda":
            networks = {name: nn.SyncBatchNorm.convert_sync_batchnorm(each) for name, each in networks.items()}
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        for network in networks.values():
            network.to(ranks.device, memory_format=self.layout).train()  # pretrained encoders come in eval mode
        self.generator: Generator = networks["generator"]
        averaging = get_ema_multi_avg_fn(recipe.ema_decay)
        self.average = AveragedModel(self.generator, ranks.device, multi_avg_fn=averaging) if recipe.ema_decay else None
        self.content_loss = ContentLoss(recipe.losses).to(ranks.device)
        optimizers = {name: self._optimizer(network) for name, network in networks.items()}
        self.schedules = {name: Schedule(recipe, each, steps=self.feed.steps) for name, each in optimizers.items()}
        trained = networks | ({"generator": torch.compile(self.generator)} if recipe.compile else {})
        self.one_step = Step(
            recipe,
            networks={name: ranks.wrapped(network) for name, network in trained.items()},
            optimizers=optimizers,
            content_loss=self.content_loss,
            sees=self.generator,
            teacher=teacher.to(ranks.device, memory_format=self.layout) if teacher else None,
        )
        self.parts: dict[str, Any] = networks | ({"average": self.average} if self.average else {})
        for name in networks:
            self.parts[f"{name}_optimizer"] = optimizers[name]
            self.parts[f"{name}_schedule"] = self.schedules[name]
            self.parts[f"{name}_scaler"] = self.one_step.scalers[name]

    def _optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        kind = _OPTIMIZERS[self.recipe.optimizer]
        fused = self.ranks.device.type == "cuda" or None
        settings = {"lr": self.recipe.learning_rate, "weight_decay": self.recipe.weight_decay, "fused": fused}
        return kind(network.parameters(), **settings)

    def _take_step(self, blurred: Tensor, sharp: Tensor) -> None:
        # Random numbers depend on the step alone, so no state of theirs has to be saved.
        seeds = np.random.SeedSequence((self.recipe.seed, self.step, self.ranks.rank))
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        restored, losses = self.one_step(blurred, sharp)
        if self.one_step.skipped >= MOST_SKIPPED:
            raise DivergedError(
                f"no finite gradient in {MOST_SKIPPED} steps up to step {self.step + 1}; the last good state is kept; "
                f"start again with a lower learning_rate: {self.run}"
            )
        if self.average:
            self.average.update_parameters(self.generator)
        for schedule in self.schedules.values():
            schedule.after_step()
        self.step += 1
        if self.one_step.skipped:
            self.sums["skipped_steps"] += 1
            return
        self.sums["steps"] += 1
        self.not_added.append(losses)
        if self.step % self.recipe.metrics_steps == 0 or self._is_last_of_epoch():
            self.sums["pictures"] += len(sharp)
            self.sums["psnr_db"] += float(psnr_db(restored, sharp).sum())
            self.sums["ssim"] += float(ssim(restored, sharp).sum())

    def _end_epoch(self, *, images_per_second: float) -> dict[str, Any]:
        """Validate, adjust learning rates, publish if it is the best; returns the epoch's line for the log."""
        self._settle()
        sums = self.ranks.total(self.sums)
        self.sums = dict.fromkeys(SUMS, 0.0)
        line: dict[str, Any] = {"epoch": math.ceil(self.step / self.feed.steps_per_epoch), "step": self.step}
        for names, count in ((LOSSES, sums["steps"]), (SCORES, sums["pictures"])):
            line |= {f"train/{name}": sums[name] / count for name in names if sums[name]}
        network, held_out = self._best_network(), self.feed.validation
        scores = validate(network, held_out, content_loss=self.content_loss, ranks=self.ranks)
        line |= {f"validation/{name}": score for name, score in scores.items()}
        for name in self.schedules:
            line[f"learning_rate/{name}"] = self.parts[f"{name}_optimizer"].param_groups[0]["lr"]
            self.schedules[name].after_epoch(scores["content_loss"])
        line["images_per_second"] = images_per_second
        line["skipped_steps"] = int(sums["skipped_steps"] / self.ranks.count)
        self.epochs_since_best += 1
        if scores["content_loss"] < self.best_loss:
            self.best_loss, self.epochs_since_best = scores["content_loss"], 0
            if self.ranks.first:
                checkpoint.publish(network, self.recipe.to_json(), self.run)
        return line

    def _save(self) -> None:
        self._settle()
        sums = self.ranks.total(self.sums)
        self.sums = sums if self.ranks.first else dict.fromkeys(SUMS, 0.0)
        if self.ranks.first:
            state = {name: part.state_dict() for name, part in self.parts.items()}
            facts = {"step": self.step, "best_loss": self.best_loss, "epochs_since_best": self.epochs_since_best}
            facts |= {
                "sums": sums,
                "processes": self.ranks.count,
                "recipe": self.recipe.to_json(),
                "data_hash": self.feed.data_hash,
                "teacher_hash": self.teacher_hash,
            }
            checkpoint.save_state(facts | state, self.run)

    def _settle(self) -> None:
        """Bring sums up to date and the ranks' batch statistics together.

        Raises DivergedError rather than let NaN be saved.
        """
        for losses in self.not_added:
            for name, loss in losses.items():
                self.sums[name] += float(loss)
        self.not_added.clear()
        for name, part in self.parts.items():
            if isinstance(part, nn.Module):
                self.ranks.share_buffers(part)
                if not all(bool(torch.isfinite(value).all()) for value in part.state_dict().values()):
                    raise DivergedError(
                        f"weights of the {name} are not finite at step {self.step}; the last good state is kept; "
                        f"start again with a lower learning_rate: {self.run}"
                    )

    def _is_last_of_epoch(self) -> bool:
        return self.step % self.feed.steps_per_epoch == 0 or self.step == self.feed.steps

    def _has_converged(self) -> bool:
        return 0 < self.recipe.early_stopping_epochs <= self.epochs_since_best

    def _best_network(self) -> Generator:
        """What is validated and published: the average where the recipe keeps one."""
        network: Generator = self.average.module if self.average else self.generator
        return network

    def _planes(self, frames: Tensor) -> Tensor:
        on_device = frames.to(self.ranks.device, non_blocking=True)
        return planes(on_device, self.generator).contiguous(memory_format=self.layout)
