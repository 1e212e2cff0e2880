"""The training loop, in one process or several; a resumed run gives the same bits as an uninterrupted one."""

from __future__ import annotations

import dataclasses
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
from tqdm import tqdm

from runtime.errors import UsageError
from runtime.files import write_whole
from runtime.interrupt import Interruption
from train import checkpoint
from train.config import Recipe
from train.data.index import require_folder
from train.errors import DivergedError, InterruptedRunError
from train.metrics import measure_batch
from train.models import nchw_from_frames
from train.training.adversary import min_discriminator_px
from train.training.distributed import Ranks, join_ranks, leave_ranks
from train.training.loaders import TrainingData
from train.training.networks import build_networks, check_networks
from train.training.resume import hash_teacher, load_state_of
from train.training.run_log import RunLog
from train.training.sample_images import MAX_SAMPLES, draw_samples
from train.training.services import Service, open_services, require_services
from train.training.step_totals import StepTotals
from train.training.validation import ValidationScores, validate

MAX_SKIPPED_STEPS = 20
"""Number of steps in a row without a finite gradient that ends a run."""
LAUNCH = "launch.txt"
"""File that names the torchrun launch of the run."""


def get_launch_id() -> str:
    """Return the name that torchrun gives to a launch and all its restarts; empty without torchrun."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "")


def train(
    recipe: Recipe,
    *,
    data: Sequence[Path],
    run: Path,
    resume: bool = False,
    device: str = "cpu",
    services: Sequence[Service] = (),
) -> None:
    """Train a generator, and a discriminator if the recipe has an adversarial loss.

    Writes to the folder `run`: `state.pt` and the state before it (for `resume`); `log.jsonl` and TensorBoard events,
    one entry for each epoch; and `generator.safetensors` with `config.json`, the generator of the epoch that
    `recipe.publish` names. Under torchrun, all processes call this function with the same arguments.

    `data`: folders of images; crops are taken from each of them in proportion to `data.shares`. `device`: a torch
    device. `services`: where the log is recorded too.

    Raises UsageError if `run` has a state and `resume` is False, if another process trains there, or if settings or
    images are not those of the state; DataError for images that cannot be used; CheckpointError; DivergedError;
    OutputError; and InterruptedRunError after a signal.
    """
    min_px = min_discriminator_px(recipe.gan) if recipe.losses.adversarial else 0
    if recipe.data.view != "whole" and recipe.data.smallest_px < min_px:
        what = f"the discriminator needs {min_px} pixels, images have {recipe.data.smallest_px}"
        raise UsageError(what, hint="give a larger --set data.size_px='(WIDTH, HEIGHT)', or data.progressive")
    require_services(services)
    for root in data:
        require_folder(root)
    check_networks(recipe, initialize=not resume)
    ranks = join_ranks(device)
    torch.backends.cudnn.benchmark = ranks.device.type == "cuda"  # a run has few sizes of images
    try:
        if resume:
            checkpoint.require_state(run)
        elif checkpoint.has_state(run):
            raise UsageError("this folder holds a run already", run, hint="add --resume, or give another --out")
        elif not is_of_this_launch(run):
            checkpoint.require_no_network(run)
        with checkpoint.lock_run(run) if ranks.is_first else nullcontext():
            if ranks.is_first:
                write_whole(run / LAUNCH, get_launch_id().encode())
            state = load_state_of(recipe, run, ranks=ranks) if resume else None
            training = Training(recipe, data=data, run=run, ranks=ranks, state=state)
            del state  # as large as the networks
            training.run_steps(services)
            del training  # before the group of processes ends; see leave_ranks
    finally:
        leave_ranks()


def is_of_this_launch(run: Path) -> bool:
    """Whether the folder of a run was begun by the torchrun launch that this process belongs to."""
    path = run / LAUNCH
    return bool(get_launch_id()) and path.exists() and path.read_text() == get_launch_id()


class Training:
    """A run: its images, its networks, and its progress."""

    def __init__(
        self, recipe: Recipe, *, data: Sequence[Path], run: Path, ranks: Ranks, state: dict[str, Any] | None = None
    ) -> None:
        """Check the images and build the networks, which continue from a saved state if there is one."""
        self._recipe, self._run, self._ranks = recipe, run, ranks
        self._data = TrainingData(
            recipe, data=data, run=run, ranks=ranks, data_hash=state["data_hash"] if state else None
        )
        self._teacher_hash = hash_teacher(recipe)
        self._networks = build_networks(recipe, ranks, steps=self._data.steps, initialize=state is None)
        self._step = 0
        """Number of completed steps."""
        self._totals, self._recent = (StepTotals(self._networks.content_loss.names) for _ in range(2))
        """Sums over the epoch, and over the steps since the latest entry of `log_steps`."""
        self._best_loss, self._epochs_since_best = math.inf, 0
        """Smallest validation loss, or score to be published by with its sign changed where more is better."""
        if state:
            self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        for name, part in self._networks.parts.items():
            part.load_state_dict(state[name])
        self._step = state["step"]
        self._best_loss, self._epochs_since_best = state["best_loss"], state["epochs_since_best"]
        if self._ranks.is_first:
            # Earlier versions had fewer sums, and a discriminator in each step.
            self._totals.sums |= {"adversarial_steps": state["sums"]["steps"]} | state["sums"]

    def run_steps(self, services: Sequence[Service] = ()) -> None:
        """Train to the last step, or until early stopping; raises DivergedError and InterruptedRunError."""
        is_alone = self._ranks.count == 1  # torchrun ends its processes itself
        with ExitStack() as stack:
            stack.callback(self._data.close)
            log = None
            if self._ranks.is_first:
                trackers = open_services(services, run=self._run, settings=dataclasses.asdict(self._recipe))
                log = stack.enter_context(RunLog(self._run, from_step=self._step, trackers=trackers))
                tqdm.write(f"computing in {self._networks.step.precision} on {self._ranks.device}")
                if self._step >= self._data.steps:
                    tqdm.write(f"all {self._data.steps} steps are done; raise --epochs or --max-steps to go on")
            is_hidden = None if log else True  # None: unless standard error is a terminal
            bar = tqdm(initial=self._step, total=self._data.steps, unit="step", mininterval=2, disable=is_hidden)
            stack.enter_context(bar)
            interruption = stack.enter_context(Interruption()) if is_alone else Interruption()
            interruption.on_signal = lambda: None  # the loop looks at it after each step
            began_s, first_step = time.monotonic(), self._step
            for batch in self._data.iterate_batches(start=self._step):
                if self._has_converged():
                    bar.write(f"stopping early: no better validation loss for {self._epochs_since_best} epochs")
                    break
                self._take_step(*(self._to_network_input(frames) for frames in batch))
                bar.update()
                self._log_step(log)
                if self._is_end_of_epoch() or self._is_due(self._recipe.validation_steps):
                    steps_per_second = (self._step - first_step) / (time.monotonic() - began_s)
                    entry = self._validate(images_per_second=steps_per_second * len(batch[0]) * self._ranks.count)
                    if log:
                        log.write_entry(entry)
                    began_s, first_step = time.monotonic(), self._step
                is_stopped = interruption.number is not None
                if is_stopped or self._is_end_of_epoch() or self._step % self._recipe.save_steps == 0:
                    self._save()
                if is_stopped:
                    line = f"stopped after step {self._step}; go on with --resume: {self._run}"
                    raise InterruptedRunError(line, exit_code=interruption.exit_code)

    def _take_step(self, blurred: Tensor, sharp: Tensor) -> None:
        # Random numbers depend on the step alone, so that their state need not be saved.
        seeds = np.random.SeedSequence((self._recipe.seed, self._step, self._ranks.rank))
        torch.manual_seed(int(seeds.generate_state(1)[0]))
        networks = self._networks
        restored, losses = networks.step(blurred, sharp, completed=self._step)
        if networks.step.skipped >= MAX_SKIPPED_STEPS:
            what = f"no finite gradient in {MAX_SKIPPED_STEPS} steps up to step {self._step + 1}"
            raise self._report_divergence(what)
        if networks.average:
            networks.average.update_parameters(networks.generator)
        for schedule in networks.schedules.values():
            schedule.after_step()
        self._step += 1
        if networks.step.skipped:
            self._totals.add_skipped_step()
            return
        for totals in (self._totals, self._recent):
            totals.add_step(losses)
        if self._step % self._recipe.metrics_steps == 0 or self._is_end_of_epoch():
            self._totals.add_scores(measure_batch(restored, sharp))

    def _log_step(self, log: RunLog | None) -> None:
        """Record the means of the latest steps and sample images if they are due."""
        if self._is_due(self._recipe.log_steps):
            self._recent.read_pending()
            means = self._recent.average(self._ranks.sum(self._recent.sums))
            self._recent.clear()
            if log:
                log.write_numbers({f"steps/{name}": value for name, value in means.items()}, step=self._step)
        if log and self._is_due(self._recipe.image_steps):
            samples = self._data.read_samples(MAX_SAMPLES)
            log.write_images(draw_samples(self._networks.published, samples), step=self._step)

    def _validate(self, *, images_per_second: float) -> dict[str, Any]:
        """Validate, and publish the generator if it is the best; return the entry for the log.

        At the end of an epoch, the learning rates are set too, and the sums cleared.
        """
        self._synchronize()
        networks, is_end = self._networks, self._is_end_of_epoch()
        sums, epochs = self._ranks.sum(self._totals.sums), self._step / self._data.steps_per_epoch
        entry: dict[str, Any] = {"epoch": math.ceil(epochs) if is_end else round(epochs, 4), "step": self._step}
        entry |= {f"train/{name}": value for name, value in self._totals.average(sums).items()}
        scores = validate(
            networks.published,
            self._data.validation,
            content_loss=networks.content_loss,
            ranks=self._ranks,
            autocast=networks.step.autocast,
        )
        if not math.isfinite(scores.content_loss):
            raise self._report_divergence(f"validation loss is not finite at step {self._step}")
        entry |= {f"validation/{name}": score for name, score in scores._asdict().items() if score is not None}
        for name, schedule in networks.schedules.items():
            entry[f"learning_rate/{name}"] = networks.optimizers[name].param_groups[0]["lr"]
            if is_end:
                schedule.after_epoch(scores.content_loss)
        if is_end:
            self._totals.clear()
        entry["images_per_second"] = images_per_second
        entry["skipped_steps"] = int(sums["skipped_steps"] / self._ranks.count)
        is_best = self._is_best(scores, is_end=is_end)
        entry["is_published"] = is_best if self._recipe.published_score else is_end
        if self._ranks.is_first:
            self._publish(entry, is_end=is_end)
        return entry

    def _is_best(self, scores: ValidationScores, *, is_end: bool) -> bool:
        """Return whether a validation is the best so far; at the end of an epoch, count those without a better one."""
        name = self._recipe.published_score or "content_loss"
        loss = getattr(scores, name) * (-1 if name in {"psnr_db", "ssim"} else 1)
        is_best = loss < self._best_loss
        if is_best:
            self._best_loss, self._epochs_since_best = loss, 0 if is_end else -1  # the end of this epoch adds 1
        elif is_end:
            self._epochs_since_best += 1
        return bool(is_best)

    def _publish(self, entry: dict[str, Any], *, is_end: bool) -> None:
        """Write the weights of a validation if it is published or kept."""
        generator, config = self._networks.published, self._recipe.to_json()
        if entry["is_published"]:
            checkpoint.publish(generator, config, self._run)
        if is_end and self._recipe.keep_every_epochs and entry["epoch"] % self._recipe.keep_every_epochs == 0:
            checkpoint.publish(generator, config, self._run / f"epoch_{entry['epoch']:04}")

    def _save(self) -> None:
        self._synchronize()
        sums = self._ranks.sum(self._totals.sums)
        if not self._ranks.is_first:
            self._totals.clear()  # the first process has the sums of all now
            return
        self._totals.sums = sums
        facts = {
            "step": self._step,
            "best_loss": self._best_loss,
            "epochs_since_best": self._epochs_since_best,
            "sums": sums,
            "processes": self._ranks.count,
            "recipe": self._recipe.to_json(),
            "data_hash": self._data.data_hash,
            "teacher_hash": self._teacher_hash,
        }
        states = {name: part.state_dict() for name, part in self._networks.parts.items()}
        checkpoint.save_state(facts | states, self._run)

    def _synchronize(self) -> None:
        """Add the pending losses, and share the batch statistics between the processes.

        Raises DivergedError instead of letting NaN be saved.
        """
        self._totals.read_pending()
        for name, part in self._networks.parts.items():
            if isinstance(part, nn.Module):
                self._ranks.share_buffers(part)
                if not all(bool(torch.isfinite(value).all()) for value in part.state_dict().values()):
                    raise self._report_divergence(f"weights of the {name} are not finite at step {self._step}")

    def _report_divergence(self, what: str) -> DivergedError:
        hint = "the last good state is kept; start again with a lower learning_rate"
        return DivergedError(what, self._run, hint=hint)

    def _is_due(self, interval: int) -> bool:
        """Return whether something that happens every `interval` steps (0: never) happens after this one."""
        return interval > 0 and self._step % interval == 0

    def _is_end_of_epoch(self) -> bool:
        return self._step % self._data.steps_per_epoch == 0 or self._step == self._data.steps

    def _has_converged(self) -> bool:
        return 0 < self._recipe.early_stopping_epochs <= self._epochs_since_best

    def _to_network_input(self, frames: Tensor) -> Tensor:
        """Convert uint8[N, H, W, 3] BGR to float32[N, 3, H, W] in [0, 1] on the device."""
        on_device = frames.to(self._ranks.device, non_blocking=True)
        nchw = nchw_from_frames(on_device, self._networks.generator)
        return nchw.contiguous(memory_format=self._networks.memory_format)
