"""Groups of channels: what has to be removed together from the layers of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIXED = ""
"""Name of channels that are not removed, such as the colours of the image."""


@dataclass(frozen=True)
class Layer:
    """A convolution or a normalisation, with the groups that its channels belong to, in their order."""

    name: str
    """Name of the submodule."""
    inputs: tuple[str, ...]
    """Groups of the input channels; empty for a normalisation."""
    outputs: tuple[str, ...]
    """Groups of the output channels."""
    repeat: int = 1
    """Number of consecutive output channels that make one channel of a group (before a pixel shuffle)."""
    counts: bool = True
    """Whether the weights say how much an output channel matters."""


def measure_groups(layers: Sequence[Layer], state: Mapping[str, Tensor]) -> dict[str, int]:
    """Return the number of channels of each group, from the layers whose output is one group."""
    single = [layer for layer in layers if len(layer.outputs) == 1 and layer.outputs != (FIXED,)]
    return {layer.outputs[0]: len(state[f"{layer.name}.weight"]) // layer.repeat for layer in single}


def select_channels(layers: Sequence[Layer], state: Mapping[str, Tensor], kept: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the channels of each group that matter most, in ascending order.

    A channel matters as the sum of the absolute weights of its filter (Li et al. 2017, "Pruning Filters for Efficient
    ConvNets"), or as its factor in a normalisation (Liu et al. 2017, "Network Slimming"), each in proportion to the
    mean of its layer, and added up over the layers that write to a group. `kept`: number of channels by group.
    """
    sizes = measure_groups(layers, state)
    strengths = {group: torch.zeros(size) for group, size in sizes.items()}
    for layer in layers:
        if layer.counts and layer.outputs != (FIXED,):
            own = state[f"{layer.name}.weight"].abs().flatten(1 if layer.inputs else 0)
            own = own.sum(dim=1) if layer.inputs else own
            own = own.reshape(-1, layer.repeat).sum(dim=1)
            relative = own / own.mean().clamp(min=1e-12)
            parts = torch.split(relative, [sizes[group] for group in layer.outputs])
            for group, part in zip(layer.outputs, parts, strict=True):
                strengths[group] += part
    return {group: strength.topk(kept[group]).indices.sort().values for group, strength in strengths.items()}


def cut_channels(
    layers: Sequence[Layer], state: Mapping[str, Tensor], channels: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the state dict of the network that has the given channels of each group only."""
    sizes = measure_groups(layers, state)
    cut = {}
    for layer in layers:
        rows = _locate(layer.outputs, sizes, channels, repeat=layer.repeat)
        columns = _locate(layer.inputs, sizes, channels) if layer.inputs else None
        for key, value in state.items():
            if key.rpartition(".")[0] == layer.name:
                own = value if rows is None or value.ndim == 0 else value[rows]
                cut[key] = own if columns is None or value.ndim < 2 else own[:, columns]
    return cut


def _locate(
    groups: Sequence[str], sizes: Mapping[str, int], channels: Mapping[str, Tensor], *, repeat: int = 1
) -> Tensor | None:
    """Return the positions of the given channels in a tensor with all channels of the groups; None: all of them."""
    if tuple(groups) == (FIXED,):
        return None
    positions, start = [], 0
    for group in groups:
        own = (channels[group][:, None] * repeat + torch.arange(repeat)).flatten()
        positions.append(start + own)
        start += sizes[group] * repeat
    return torch.cat(positions)
