"""Encoders of `transformers`, with random or pretrained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from runtime.errors import UsageError

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


class PretrainedError(UsageError):
    """Pretrained weights cannot be found, or do not fit the encoder."""


class ImageNetNormalisation(nn.Module):
    """Normalise RGB in [0, 1], float32[N, 3, H, W], by the mean and deviation of ImageNet, as in pretraining."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def create_encoder(
    kind: type[PreTrainedModel], config: PreTrainedConfig, *, pretrained: str | None, **options: Any
) -> Any:
    """Return an encoder with random weights, or with those of `pretrained`: a folder or a name on the Hugging Face hub.

    Raises PretrainedError if the weights cannot be loaded or are of another network.
    """
    if pretrained is None:
        return kind(config, **options)
    try:
        loaded: Any = kind.from_pretrained(pretrained, config=config, output_loading_info=True, **options)
    except OSError as error:
        reason = "holds no weights" if Path(pretrained).exists() else "is no folder, and the hub cannot be reached"
        hint = "give its folder, --set options.pretrained=DIR, or train from random weights, options.pretrained=None"
        raise PretrainedError(f"pretrained encoder {reason}", pretrained, hint=hint) from error
    except RuntimeError as error:
        raise PretrainedError("pretrained encoder has other layers", pretrained, hint="match options.size") from error
    encoder, report = loaded
    if missing := len(report["missing_keys"]):
        raise PretrainedError(f"pretrained encoder lacks {missing} weights", pretrained, hint="match options.size")
    return encoder
