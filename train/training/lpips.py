"""LPIPS, the distance of two pictures in the features of AlexNet (Zhang et al. 2018).

The weights are not ours to ship: they come as a file, the state of `lpips.LPIPS(net="alex")`,
saved with torch or safetensors.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


class _Layer(NamedTuple):
    name: str
    channels: int
    kernel: int
    stride: int
    padding: int
    pooled: bool


_LAYERS = (
    _Layer("net.slice1.0", 64, 11, 4, 2, pooled=False),
    _Layer("net.slice2.3", 192, 5, 1, 2, pooled=True),
    _Layer("net.slice3.6", 384, 3, 1, 1, pooled=True),
    _Layer("net.slice4.8", 256, 3, 1, 1, pooled=False),
    _Layer("net.slice5.10", 256, 3, 1, 1, pooled=False),
)
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """float32[N, 3, H, W] in [0, 1] twice -> the mean distance, a scalar; both sides at least 35 pixels.

    The five ReLU maps of both pictures, normalised over their channels, are subtracted, squared,
    weighted per channel, averaged over the positions, and added. Channels are taken as RGB.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str | Path) -> None:
        """Raises ValueError if the file is missing, unreadable, or holds another network's weights."""
        super().__init__()
        state = _read(Path(weights))
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
            raise ValueError(f'not the state of lpips.LPIPS(net="alex") ({error}): {weights}') from error

    def forward(self, restored: Tensor, sharp: Tensor) -> Tensor:
        x, y = ((2 * pictures - 1 - self.shift) / self.scale for pictures in (restored, sharp))
        total = restored.new_zeros(())
        for index, layer in enumerate(_LAYERS):
            if layer.pooled:
                x, y = F.max_pool2d(x, 3, 2), F.max_pool2d(y, 3, 2)
            kernel, bias = getattr(self, f"kernel{index}"), getattr(self, f"bias{index}")
            x, y = (F.relu(F.conv2d(z, kernel, bias, layer.stride, layer.padding)) for z in (x, y))
            distance = (_normalised(x) - _normalised(y)).square()
            weight = getattr(self, f"linear{index}").view(1, -1, 1, 1)
            total = total + (weight * distance).sum(dim=1).mean()
        return total


def _normalised(features: Tensor) -> Tensor:
    # A root of zero has no gradient, and ReLU maps have places where all channels are zero.
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-10).sqrt()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever zipfile, pickle and struct raise
        raise ValueError(f"LPIPS weights do not load ({type(error).__name__}); check the path: {path}") from error
    return state
