"""What the loop is fed with: which samples each step takes, in batches read ahead by other processes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from train.checkpoint import write_whole
from train.config import Recipe
from train.data.datasets import Crops, CropsOnDevice, Key, Pair, Pictures, dataset
from train.data.index import check, find_samples, fingerprint, split
from train.interrupt import SIGNALS
from train.training.distributed import Ranks

CHECKED = "checked.txt"
"""Says which pictures were found to be usable, so that a resumed run need not look again."""


class Feed:
    """Training and validation pictures of a run, found, checked and brought to the recipe's size."""

    def __init__(self, recipe: Recipe, *, data: Sequence[Path], run: Path, ranks: Ranks) -> None:
        """Raises DataError with all that is wrong, and ValueError if the ranks differ in what they found."""
        self.recipe, self.ranks = recipe, ranks
        if recipe.data.shares and len(recipe.data.shares) != len(data):
            raise ValueError(f"{len(recipe.data.shares)} shares for {len(data)} folders of pictures; give one for each")
        found = [find_samples(root, blurred_folder=recipe.data.blurred_folder) for root in data]
        training, validation = (
            list(groups) for groups in zip(*(split(each, recipe.data) for each in found), strict=True)
        )
        groups = [(root, [*ours, *held_out]) for root, ours, held_out in zip(data, training, validation, strict=True)]
        self.data_hash = fingerprint(groups)
        ranks.agree({"settings": recipe.to_json(), "pictures": self.data_hash, "torch version": torch.__version__})
        checked, facts = run / CHECKED, f"{self.data_hash} {recipe.data}\n".encode()

        def open_pairs() -> tuple[Pictures | Crops, Pictures | Crops]:
            options = {"cache": run / "crops", "key": self.data_hash}
            return (
                dataset(training, recipe.data, seed=recipe.seed, augment=True, **options),
                dataset(validation, recipe.data, seed=recipe.seed + 1, augment=False, **options),
            )

        def check_and_make() -> None:
            counts = [sum(map(len, each)) for each in (training, validation)]
            print(f"{counts[0]} pictures to train on, {counts[1]} to validate with")
            if not (checked.exists() and checked.read_bytes() == facts):
                check([*chain(*training, *validation)], recipe.data, where=", ".join(map(str, data)))
                write_whole(checked, facts)
            open_pairs()

        ranks.first_alone(check_and_make)  # the others find everything made
        self.pairs, self.held_out = open_pairs()
        self.steps_per_epoch = steps_per_epoch(len(self.pairs), batch=recipe.batch * ranks.count)
        self.steps = min(recipe.epochs * self.steps_per_epoch, recipe.max_steps or sys.maxsize)
        """Of the whole run."""
        self.workers = 0 if isinstance(self.pairs, Crops) else recipe.workers
        keys = validation_keys(len(self.held_out), batch=recipe.batch, rank=ranks.rank, ranks=ranks.count)
        self.validation = _loader(self.held_out, keys, workers=self.workers)
        """Batches of this rank's share, uint8[N, H, W, 3] BGR blurred and sharp, the same each time."""

    def training(self, *, start: int) -> Iterable[tuple[Tensor, Tensor]]:
        """A batch for each step from `start` (0 is the first), uint8[N, H, W, 3] BGR blurred and sharp."""
        ranks, recipe = self.ranks, self.recipe
        place = {"rank": ranks.rank, "ranks": ranks.count, "start": start, "stop": self.steps}
        keys = training_keys(len(self.pairs), batch=recipe.batch, seed=recipe.seed, **place)
        if isinstance(self.pairs, Crops) and CropsOnDevice.have_room(self.pairs, ranks.device):
            return CropsOnDevice(self.pairs, ranks.device).batches(keys)
        return _loader(self.pairs, keys, workers=self.workers)


def steps_per_epoch(rows: int, *, batch: int) -> int:
    """Whole batches only; pictures fewer than a batch are seen more than once in it."""
    return max(1, rows // batch)


def training_keys(
    rows: int, *, batch: int, seed: int, start: int, stop: int, rank: int = 0, ranks: int = 1
) -> Iterator[list[Key]]:
    """The samples of this rank for the steps `start` to `stop`, in an order of its own each epoch.

    `batch` is one rank's; together the ranks take the samples that one with the sum would take.
    """
    together = batch * ranks
    steps = steps_per_epoch(rows, batch=together)
    order: NDArray[np.int64] | None = None
    for step in range(start, stop):
        epoch, position = divmod(step, steps)
        if order is None or position == 0:
            order = np.random.default_rng((seed, epoch)).permutation(rows)
        first = position * together + rank * batch
        yield [(epoch, int(row)) for row in order.take(range(first, first + batch), mode="wrap")]


def validation_keys(rows: int, *, batch: int, rank: int = 0, ranks: int = 1) -> list[list[Key]]:
    """Every `ranks`-th sample once, the last batch as large as it comes."""
    mine = range(rank, rows, ranks)
    return [[(0, row) for row in mine[start : start + batch]] for start in range(0, len(mine), batch)]


def _loader(pairs: Pictures | Crops, keys: Any, *, workers: int) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(
        pairs,
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_stacked,
        worker_init_fn=_start_worker,
        # Forked, they would inherit the locks of threads that do not exist in them.
        multiprocessing_context="spawn" if workers else None,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def _stacked(pairs: list[Pair]) -> tuple[Tensor, Tensor]:
    blurred, sharp = (np.stack(pictures) for pictures in zip(*pairs, strict=True))
    return torch.from_numpy(blurred), torch.from_numpy(sharp)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    for number in SIGNALS:  # they reach the whole group; the loop ends its workers itself
        signal.signal(number, signal.SIG_IGN)
