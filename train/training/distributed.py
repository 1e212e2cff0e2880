"""Groups of processes that train together (torchrun); a process alone is a group of one."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from runtime.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """Rank of this process, number of processes, and the device that this one computes on."""

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and prints."""
        return self.rank == 0

    def require_equal(self, facts: dict[str, str]) -> None:
        """Raise UsageError in every process if the processes have different `facts`."""
        if self.count == 1:
            return
        facts_by_rank: list[dict[str, str]] = [{}] * self.count
        dist.all_gather_object(facts_by_rank, facts)
        for name in facts:
            values = [facts_of_rank.get(name) for facts_of_rank in facts_by_rank]
            if len(set(values)) > 1:
                what = f"processes differ in their {name} ({', '.join(map(str, values))})"
                raise UsageError(what, hint="start all of them alike")

    def sum(self, values: dict[str, float]) -> dict[str, float]:
        """Return the sums of the values of all processes, computed in float64."""
        if self.count == 1:
            return values
        packed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(packed)
        return dict(zip(values, packed.tolist(), strict=True))

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network with gradients averaged over all processes (DistributedDataParallel)."""
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)

    def share_buffers(self, network: nn.Module) -> None:
        """Copy the batch statistics of the first process to all others."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def run_on_first(self, work: Callable[[], None]) -> None:
        """Run `work` in the first process while the others wait; all raise its exception."""
        failure: list[Exception | None] = [None]
        if self.is_first:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - sent to all processes and raised below
                failure = [error]
        if self.count > 1:
            dist.broadcast_object_list(failure, 0)
        if failure[0]:
            raise failure[0]


def is_started_by_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "WORLD_SIZE" in os.environ


def join_ranks(device: str) -> Ranks:
    """Join the processes that torchrun started, through NCCL on GPUs and Gloo on CPUs.

    `device`: a torch device; `cuda` without a number is the GPU of this process. Raises UsageError if it does not
    exist.
    """
    try:
        place = torch.device(device)
        if device == "cuda":
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"no such device ({reason})", device, hint="give another --device") from error
    if not is_started_by_torchrun():
        return Ranks(0, 1, place)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    # Its functions take the group of the moment of import as a default. If DistributedDataParallel imported it later,
    # the group would outlive `leave_ranks`.
    importlib.import_module("torch.distributed.nn.functional")
    # The other processes wait while the first one checks the images and makes the crops.
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(hours=12))
    return Ranks(dist.get_rank(), dist.get_world_size(), place)


def leave_ranks() -> None:
    """Leave the group of processes, if this one is in a group.

    The caller has dropped its networks: DistributedDataParallel refers to the group, in a reference cycle. If the group
    outlives this call, so do its threads, and they can abort the process (SIGABRT) while the interpreter ends.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()
