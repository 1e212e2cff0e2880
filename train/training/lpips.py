"""LPIPS, the distance of two images in the features of AlexNet (Zhang et al. 2018), version 0.1.

The toolkit does not contain the weights. `python -m train.lpips_weights` gets them; a file with the state of
`lpips.LPIPS(net="alex")`, saved with torch or safetensors, is as good.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from runtime.errors import UsageError
from train.models.base import ChannelOrder

MIN_IMAGE_PX = 35
"""Smallest height and width of an image."""


class _Layer(NamedTuple):
    name: str
    channels: int
    kernel: int
    stride: int
    padding: int
    is_pooled: bool
    """Whether the input is reduced by max pooling."""


_LAYERS = (
    _Layer("net.slice1.0", 64, 11, 4, 2, is_pooled=False),
    _Layer("net.slice2.3", 192, 5, 1, 2, is_pooled=True),
    _Layer("net.slice3.6", 384, 3, 1, 1, is_pooled=True),
    _Layer("net.slice4.8", 256, 3, 1, 1, is_pooled=False),
    _Layer("net.slice5.10", 256, 3, 1, 1, is_pooled=False),
)
LAYER_NAMES = tuple(layer.name for layer in _LAYERS)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Mean distance of two batches float32[N, 3, H, W] in [0, 1], a scalar; H and W are at least `MIN_IMAGE_PX`.

    The five ReLU maps of both images are normalised over their channels, subtracted, squared, weighted for each
    channel, averaged over the positions, and added.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str | Path | None = None, *, channel_order: ChannelOrder) -> None:
        """Load the weights from a file, or from `default_weights()`; `channel_order` is that of the images.

        Raises UsageError if the file is missing, damaged, or of another network.
        """
        super().__init__()
        self._channel_order = channel_order
        weights = weights or default_weights()
        state = _read_weights(Path(weights))
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).view(1, 3, 1, 1))
        below = 3
        try:
            for index, layer in enumerate(_LAYERS):
                shape = (layer.channels, below, layer.kernel, layer.kernel)
                self.register_buffer(f"kernel{index}", state[f"{layer.name}.weight"].reshape(shape))
                self.register_buffer(f"bias{index}", state[f"{layer.name}.bias"].reshape(layer.channels))
                self.register_buffer(f"linear{index}", state[f"lin{index}.model.1.weight"].reshape(layer.channels))
                below = layer.channels
        except (KeyError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            hint = "get them with python -m train.lpips_weights"
            raise UsageError(f'not the state of lpips.LPIPS(net="alex") ({reason})', weights, hint=hint) from error

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        rgb = (images.flip(1) if self._channel_order == "BGR" else images for images in (restored, sharp))
        x, y = ((2 * images - 1 - self.shift) / self.scale for images in rgb)
        total = restored.new_zeros(())
        for index, layer in enumerate(_LAYERS):
            if layer.is_pooled:
                x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
            kernel, bias = getattr(self, f"kernel{index}"), getattr(self, f"bias{index}")
            x, y = (F.relu(F.conv2d(z, kernel, bias, layer.stride, layer.padding)) for z in (x, y))
            distance = (_normalize(x) - _normalize(y)).square()
            weight = getattr(self, f"linear{index}").view(1, -1, 1, 1)
            total = total + (weight * distance).sum(dim=1).mean()
        return total


def default_weights() -> Path:
    """Return the place where `python -m train.lpips_weights` puts the weights."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deblur" / "lpips_alex.safetensors"


def _normalize(features: Tensor) -> Tensor:
    # The square root has no gradient at 0, and ReLU maps have positions where all channels are 0.
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever zipfile, pickle and struct raise
        hint = "get them with python -m train.lpips_weights"
        raise UsageError(f"weights of LPIPS do not load ({type(error).__name__})", path, hint=hint) from error
    return state
