"""Contract of a discriminator."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Discriminator(nn.Module):
    """float32[N, 3, H, W] -> maps of outputs, float32[N, 1, h, w] each; a large output stands for a sharp image.

    Images have the generator's pixel range and channel order.
    """

    def compute_features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps of outputs, and the features inside that feature matching compares."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.compute_features(images)[0]


def normalize_weights(convolution: nn.Conv2d) -> nn.Conv2d:
    """Divide the weights of a convolution by their largest singular value (Miyato et al. 2018)."""
    spectral_norm(convolution)
    return convolution
