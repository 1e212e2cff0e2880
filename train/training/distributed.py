"""Several processes, as torchrun starts them; a process alone is a group of one."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many, and on what device it computes."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks to the terminal."""
        return self.rank == 0

    def agree(self, facts: dict[str, str]) -> None:
        """Raise ValueError, on every rank, if the ranks hold different `facts`."""
        if self.count == 1:
            return
        everyone: list[dict[str, str]] = [{}] * self.count
        dist.all_gather_object(everyone, facts)
        for name in facts:
            values = [theirs.get(name) for theirs in everyone]
            if len(set(values)) > 1:
                raise ValueError(f"processes differ in their {name} ({', '.join(map(str, values))}); start all alike")

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over the ranks, in float64."""
        if self.count == 1:
            return values
        packed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        dist.all_reduce(packed)
        return dict(zip(values, packed.tolist(), strict=True))

    def wrapped(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the ranks (DistributedDataParallel)."""
        if self.count == 1:
            return network
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)

    def share_buffers(self, network: nn.Module) -> None:
        """Give every rank the first one's batch statistics."""
        if self.count > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer, 0)

    def first_alone(self, work: Callable[[], None]) -> None:
        """Let the first rank work while the others wait; what it raises, all raise."""
        failure: list[Exception | None] = [None]
        if self.first:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - told to all, and raised below
                failure = [error]
        if self.count > 1:
            dist.broadcast_object_list(failure, 0)
        if failure[0]:
            raise failure[0]


def join(device: str) -> Ranks:
    """Join the processes that torchrun started: NCCL on GPUs, Gloo on CPUs. Raises ValueError for no such device."""
    try:
        place = torch.device(device)
        if place.type == "cuda" and place.index is None:
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"no such device ({reason}); give another --device: {device}") from error
    if "WORLD_SIZE" not in os.environ:
        return Ranks(0, 1, place)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    # The others wait while the first one checks the pictures and makes the crops.
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=timedelta(hours=12))
    return Ranks(dist.get_rank(), dist.get_world_size(), place)


def leave() -> None:
    """Release the group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
