"""Weights of ResNets with the names that torchvision gives them, as an encoder of `transformers` names them."""

from __future__ import annotations

import re

from torch import Tensor

_STEM = {"conv1": "convolution", "bn1": "normalization"}
_LAYERS = {"conv": "convolution", "bn": "normalization"}
_SHORTCUT = {"0": "convolution", "1": "normalization"}
_BLOCK_KEY = re.compile(r"layer(\d+)\.(\d+)\.(?:(conv|bn)(\d+)|downsample\.([01]))\.(\w+)")
_CLASSIFIER = "fc."


def convert_torchvision_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a ResNet of torchvision without its classifier, by the names of `transformers`.

    Raises ValueError for a name that a ResNet of torchvision does not have.
    """
    return {_convert_key(key): value for key, value in state.items() if not key.startswith(_CLASSIFIER)}


def _convert_key(key: str) -> str:
    module, _, kind = key.partition(".")
    if module in _STEM:
        return f"embedder.embedder.{_STEM[module]}.{kind}"
    if not (match := _BLOCK_KEY.fullmatch(key)):
        raise ValueError(f"{key} is no weight of a ResNet of torchvision")
    stage, block, layer, number, shortcut, kind = match.groups()
    part = f"layer.{int(number) - 1}.{_LAYERS[layer]}" if layer else f"shortcut.{_SHORTCUT[shortcut]}"
    return f"encoder.stages.{int(stage) - 1}.layers.{block}.{part}.{kind}"
