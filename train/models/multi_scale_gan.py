"""`multi_scale`: patch discriminators of an image and of smaller copies of it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from train.models.discriminator import Discriminator
from train.models.patch_gan import PatchGan


class MultiScaleGan(Discriminator):
    """float32[N, 3, H, W] -> a map of outputs for each scale, from the largest image to the smallest.

    pix2pixHD (Wang et al. 2018, section 3.2): discriminators of equal structure and own weights; each copy of the image
    is half as large as the one before, by average pooling.
    """

    def __init__(self, scales: Sequence[PatchGan]) -> None:
        """`scales`: the discriminators, from the largest image to the smallest."""
        super().__init__()
        self.scales = nn.ModuleList(scales)

    def compute_features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        outputs: list[Tensor] = []
        features: list[Tensor] = []
        for scale in self.scales:
            assert isinstance(scale, PatchGan)
            own_outputs, own_features = scale.compute_features(images)
            outputs += own_outputs
            features += own_features
            images = F.avg_pool2d(images, 3, stride=2, padding=1, count_include_pad=False)
        return outputs, features
