"""Encoders from `transformers`, with pretrained weights where they can be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class PretrainedError(ValueError):
    """Pretrained weights cannot be found or do not fit."""


class ImageNetNormalisation(nn.Module):
    """RGB in [0, 1] -> the zero mean and unit deviation that encoders were pretrained with."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def encoder_from(
    kind: type[PreTrainedModel], config: PreTrainedConfig, *, pretrained: str | None, **options: Any
) -> PreTrainedModel:
    """An encoder of the given configuration, its weights random or from `pretrained`.

    `pretrained`: a folder, or a name on the Hugging Face hub. Raises PretrainedError, with the
    way out, if it is neither or holds another network.
    """
    if pretrained is None:
        return kind(config, **options)
    try:
        encoder, report = kind.from_pretrained(pretrained, config=config, output_loading_info=True, **options)
    except OSError as error:
        where = "holds no weights" if Path(pretrained).exists() else "is no folder, and the hub cannot be reached"
        raise PretrainedError(
            f"pretrained encoder {where}; give a folder that holds it, --set options.pretrained=DIR, "
            f"or train from random weights, --set options.pretrained=None: {pretrained}"
        ) from error
    except RuntimeError as error:
        raise PretrainedError(f"pretrained encoder has other layers; match options.size: {pretrained}") from error
    if report["missing_keys"]:
        raise PretrainedError(
            f"pretrained encoder lacks {len(report['missing_keys'])} weights; match options.size: {pretrained}"
        )
    return encoder
