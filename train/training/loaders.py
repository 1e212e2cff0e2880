"""Batches for the training loop: which pairs each step takes, and the processes that read them in advance."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runtime.cli import say
from runtime.errors import InputError, UsageError
from runtime.files import write_whole
from runtime.interrupt import Interruption
from train.config import Recipe
from train.data.datasets import CropDataset, DeviceCrops, Key, Pair, PairDataset, open_dataset
from train.data.index import check_images, compute_fingerprint, describe_blurred, find_samples, split_samples
from train.training.distributed import Ranks

CHECKED = "checked.txt"
"""File that names the images which were checked, so that a resumed run need not check them again."""

Batch = tuple[Tensor, Tensor]
"""Blurred and sharp images, uint8[N, H, W, 3] BGR each."""
T = TypeVar("T")


class TrainingData:
    """Training and validation images of a run: found, checked, and opened as the recipe says."""

    def __init__(
        self, recipe: Recipe, *, data: Sequence[Path], run: Path, ranks: Ranks, data_hash: str | None = None
    ) -> None:
        """Find and check the images below the folders `data`, and make the crops in `run`.

        `data_hash`: fingerprint of the images that a resumed run began with. Raises DataError with a list of all
        problems, and UsageError if the processes find different images, or a resumed run others than before.
        """
        self._recipe, self._ranks = recipe, ranks
        if recipe.data.shares and len(recipe.data.shares) != len(data):
            what = f"{len(recipe.data.shares)} shares for {len(data)} folders of images"
            raise UsageError(what, hint="give one for each, --set data.shares=...")
        found = [find_samples(root, blurred_folder=recipe.data.blurred_folder) for root in data]
        splits = [split_samples(samples, recipe.data) for samples in found]
        training, validation = [list(groups) for groups in zip(*splits, strict=True)]
        groups = [(root, [*train, *held_out]) for root, (train, held_out) in zip(data, splits, strict=True)]
        self.data_hash = compute_fingerprint(groups)
        ranks.require_equal(
            {"settings": recipe.to_json(), "images": self.data_hash, "torch version": torch.__version__}
        )
        if data_hash not in {None, self.data_hash}:
            what = "the images are not those that the run began with"
            raise UsageError(what, run, hint="restore them, or give another --out")
        checked, facts = run / CHECKED, f"{self.data_hash} {recipe.data}\n".encode()

        def open_datasets() -> tuple[PairDataset, PairDataset]:
            options: dict[str, Any] = {"cache": run / "crops", "key": self.data_hash}
            return (
                open_dataset(training, recipe.data, seed=recipe.seed, augment=True, **options),
                open_dataset(validation, recipe.data, seed=recipe.seed + 1, augment=False, **options),
            )

        def check_and_make_crops() -> None:
            print(recipe.to_json())
            for samples in found:
                if note := describe_blurred(samples, blurred_folder=recipe.data.blurred_folder):
                    say(note)
            counts = [sum(map(len, part)) for part in (training, validation)]
            print(f"{counts[0]} images to train on, {counts[1]} to validate with")
            if not (checked.exists() and checked.read_bytes() == facts):
                check_images([*chain(*training, *validation)], recipe.data, where=", ".join(map(str, data)))
                write_whole(checked, facts)
            open_datasets()

        ranks.run_on_first(check_and_make_crops)  # the other processes then find the crops
        self._pairs, held_out_pairs = open_datasets()
        self._held_out_pairs = held_out_pairs
        self.steps_per_epoch = count_steps_per_epoch(len(self._pairs), batch=recipe.step_pairs * ranks.count)
        self.steps = min(recipe.epochs * self.steps_per_epoch, recipe.max_steps or sys.maxsize)
        """Number of steps of the whole run."""
        self._workers = 0 if isinstance(self._pairs, CropDataset) else recipe.workers
        batch = 1 if recipe.data.validation_frames else recipe.batch  # whole images have sizes of their own
        keys = list_validation_keys(len(held_out_pairs), batch=batch, rank=ranks.rank, ranks=ranks.count)
        workers = 0 if isinstance(held_out_pairs, CropDataset) else self._workers
        self._loaders = [_BatchLoader(held_out_pairs, keys, workers=workers)]
        self.validation: Iterable[Batch] = self._loaders[0]
        """Validation batches of this process, the same each time."""

    def iterate_batches(self, *, start: int) -> Iterator[Batch]:
        """Yield a batch for each step of this process from step `start`; the first step is 0."""
        ranks, recipe = self._ranks, self._recipe
        keys = iterate_training_keys(
            len(self._pairs),
            batch=recipe.step_pairs,
            seed=recipe.seed,
            rank=ranks.rank,
            ranks=ranks.count,
            start=start,
            stop=self.steps,
        )
        batches: Iterable[Batch]
        if isinstance(self._pairs, CropDataset) and DeviceCrops.fits(self._pairs, ranks.device):
            batches = DeviceCrops(self._pairs, ranks.device).iterate_batches(keys)
        else:
            batches = _BatchLoader(self._pairs, keys, workers=self._workers)
            self._loaders.append(batches)
        for step, (blurred, sharp) in enumerate(batches, start):
            side_px = recipe.data.side_at(step / self.steps)
            is_whole = side_px == recipe.data.size_px[0]
            yield (blurred, sharp) if is_whole else (cut_squares(blurred, side_px), cut_squares(sharp, side_px))

    def read_samples(self, count: int) -> list[Pair]:
        """Return up to `count` validation pairs, spread over all of them; the same each time."""
        total = len(self._held_out_pairs)
        return [self._held_out_pairs[0, total * index // min(count, total)] for index in range(min(count, total))]

    def close(self) -> None:
        """End the processes that read batches in advance; without it they may keep this process from ending."""
        for loader in self._loaders:
            loader.close()


def cut_squares(images: Tensor, side_px: int) -> Tensor:
    """Cut each of N square images [N, S, S, 3] into its squares, [N (S / side_px)^2, side_px, side_px, 3]."""
    count, size_px = len(images), images.shape[1]
    squares = images.reshape(count, size_px // side_px, side_px, size_px // side_px, side_px, 3)
    return squares.transpose(2, 3).reshape(-1, side_px, side_px, 3)


def count_steps_per_epoch(rows: int, *, batch: int) -> int:
    """Return the number of whole batches in an epoch; fewer rows than a batch are repeated to fill one."""
    return max(1, rows // batch)


def iterate_training_keys(
    rows: int, *, batch: int, seed: int, start: int, stop: int, rank: int = 0, ranks: int = 1
) -> Iterator[list[Key]]:
    """Yield the keys of the pairs that this process takes in each step from `start` to before `stop`.

    The order of the rows is random, another one in each epoch. `batch` is the size for one process: all processes
    together take the rows that one process with the sum of the sizes would take.
    """
    whole_batch = batch * ranks
    steps = count_steps_per_epoch(rows, batch=whole_batch)
    order: NDArray[np.int64] | None = None
    for step in range(start, stop):
        epoch, position = divmod(step, steps)
        if order is None or position == 0:
            order = np.random.default_rng((seed, epoch)).permutation(rows)
        first = position * whole_batch + rank * batch
        yield [(epoch, int(row)) for row in order.take(range(first, first + batch), mode="wrap")]


def list_validation_keys(rows: int, *, batch: int, rank: int = 0, ranks: int = 1) -> list[list[Key]]:
    """Return the keys of this process in batches: every `ranks`-th row once; the last batch may be smaller."""
    own_rows = range(rank, rows, ranks)
    return [[(0, row) for row in own_rows[start : start + batch]] for start in range(0, len(own_rows), batch)]


class _BatchLoader(Iterable[Batch]):
    """Batches of a dataset, read in advance by worker processes if there are any."""

    def __init__(self, pairs: PairDataset, keys: Iterable[list[Key]], *, workers: int) -> None:
        self._loader: DataLoader[Any] = DataLoader(
            _ErrorsAsValues(pairs),
            batch_sampler=keys,
            num_workers=workers,
            collate_fn=_stack_pairs,
            worker_init_fn=_start_worker,
            # A forked worker would inherit the locks of threads that do not exist in it.
            multiprocessing_context="spawn" if workers else None,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch[0], batch[1]

    def close(self) -> None:
        """End the worker processes; they ignore SIGTERM, with which Python would end them at exit and then wait."""
        iterator = self._loader._iterator  # noqa: SLF001 - PyTorch has no public way
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]  # noqa: SLF001
            for worker in iterator._workers:  # type: ignore[attr-defined]  # noqa: SLF001
                worker.kill()  # PyTorch has waited for five seconds
                worker.join()


class _ErrorsAsValues(Dataset["Pair | InputError"]):
    """A dataset that returns an InputError instead of raising it.

    A DataLoader does not pass exceptions of a worker process on, but makes new ones from their type and traceback.
    """

    def __init__(self, pairs: PairDataset) -> None:
        self._pairs = pairs

    def __getitem__(self, key: Key) -> Pair | InputError:
        try:
            return self._pairs[key]
        except InputError as error:
            return error


def _stack_pairs(pairs: list[Pair | InputError]) -> Batch | InputError:
    for pair in pairs:
        if isinstance(pair, InputError):
            return pair
    blurred, sharp = (np.stack(images) for images in zip(*pairs, strict=True))
    return torch.from_numpy(blurred), torch.from_numpy(sharp)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)
    for number in Interruption.SIGNALS:  # a signal reaches the whole process group; the loop ends its workers itself
        signal.signal(number, signal.SIG_IGN)
