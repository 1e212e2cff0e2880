"""Encoders of `transformers`, with random or pretrained weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, ResNetModel

from runtime.errors import UsageError
from train.models.resnet_weights import convert_torchvision_keys

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
HUB_TIMEOUT_S = 10.0
"""Seconds that the hub has to answer."""
_HINT = "give its folder, --set options.pretrained=DIR, or train from random weights, options.pretrained=None"


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
    """Return an encoder with random weights, or with those of `pretrained`.

    `pretrained`: a folder, a name on the Hugging Face hub, whose files are taken from the cache if they are in it, or a
    weights file of a ResNet of torchvision. Raises PretrainedError if the weights cannot be loaded or are of another
    network, and CheckpointError if a file cannot be read.
    """
    if pretrained is None:
        return kind(config, **options)
    if Path(pretrained).is_file():
        return _load_file(kind(config, **options), Path(pretrained))
    try:
        encoder, report = _load_folder(kind, config, pretrained, **options)
    except RuntimeError as error:
        raise PretrainedError("pretrained encoder has other layers", pretrained, hint="match options.size") from error
    if missing := len(report["missing_keys"]):
        raise PretrainedError(f"pretrained encoder lacks {missing} weights", pretrained, hint="match options.size")
    return encoder


def _load_folder(kind: type[PreTrainedModel], config: PreTrainedConfig, name: str, **options: Any) -> tuple[Any, Any]:
    """Return the encoder of a folder or of the hub, and what `transformers` reports about its weights."""
    load: Any = partial(kind.from_pretrained, name, config=config, output_loading_info=True, **options)
    try:
        loaded: tuple[Any, Any] = load(local_files_only=True)
    except OSError as error:
        if Path(name).exists():
            raise PretrainedError("pretrained encoder holds no weights", name, hint=_HINT) from error
    else:
        return loaded
    _require_on_hub(name)
    try:
        loaded = load()
    except OSError as error:
        raise PretrainedError("pretrained encoder cannot be downloaded", name, hint=_HINT) from error
    return loaded


def _require_on_hub(name: str) -> None:
    """Ask the hub once for a network: without an answer, `transformers` would ask six times for each file."""
    try:
        HfApi().model_info(name, timeout=HUB_TIMEOUT_S)
    except OfflineModeIsEnabled as error:
        reason = "is no folder and not in the cache, and HF_HUB_OFFLINE is set"
        raise PretrainedError(f"pretrained encoder {reason}", name, hint=_HINT) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise PretrainedError("pretrained encoder is no folder and not on the hub", name, hint=_HINT) from error
    except Exception as error:  # each version of the client of the hub has other exceptions of its own
        reason = "is no folder and not in the cache, and the hub cannot be reached"
        raise PretrainedError(f"pretrained encoder {reason}", name, hint=_HINT) from error


def _load_file(encoder: Any, path: Path) -> Any:
    """Return the encoder with the weights of a file of torchvision."""
    from train.published import read_state  # noqa: PLC0415 - it imports the networks

    if not isinstance(encoder, ResNetModel):
        hint = "give a folder that save_pretrained wrote, --set options.pretrained=DIR"
        raise PretrainedError("pretrained encoder is a file, which only a ResNet can be", path, hint=hint)
    try:
        encoder.load_state_dict(convert_torchvision_keys(read_state(path)))
    except ValueError as error:
        raise PretrainedError(f"no ResNet of torchvision ({error})", path, hint=_HINT) from error
    except RuntimeError as error:
        raise PretrainedError("pretrained encoder has other layers", path, hint="match options.size") from error
    return encoder
