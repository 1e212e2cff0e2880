"""Normalisations that can use the mean and deviation of each frame at inference, as some GANs need."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Statistics = Literal["frame", "trained"]
"""Mean and deviation at inference: those of the frame, or the moving averages of training."""


class FrameBatchNorm(nn.BatchNorm2d):
    """Batch normalisation that uses the statistics of each frame in eval mode if `by_frame` is set.

    In training mode it is batch normalisation. For a batch of one frame both are the same.
    """

    by_frame = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.by_frame:
            return super().forward(x)
        normal = _normalise(x, self.eps)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class FrameInstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation without scale and shift that has moving averages too, and ignores them if `by_frame`."""

    by_frame = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        if self.by_frame:
            return _normalise(x, self.eps)
        assert self.running_mean is not None
        assert self.running_var is not None
        factor = (self.running_var + self.eps).rsqrt()
        return x * factor[:, None, None] - (self.running_mean * factor)[:, None, None]


def use_statistics(network: nn.Module, statistics: Statistics) -> None:
    """Set which statistics the normalisations of a network use at inference."""
    for layer in network.modules():
        if isinstance(layer, (FrameBatchNorm, FrameInstanceNorm)):
            layer.by_frame = statistics == "frame"


def _normalise(x: Tensor, epsilon: float) -> Tensor:
    """Give each channel of each frame the mean 0 and the deviation 1: float32[N, C, H, W] -> the same."""
    centred = x - x.mean((2, 3), keepdim=True)
    variance = (centred * centred).mean((2, 3), keepdim=True)  # [N, C, 1, 1]
    return centred * (variance + epsilon).rsqrt()
