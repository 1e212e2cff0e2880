"""`multi_scale`: patch discriminators that look at an image and at smaller copies of it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from train.models.discriminator import Discriminator
from train.models.patch_gan import MIN_IMAGE_PX, Normalisation, PatchGan


class MultiScaleGan(Discriminator):
    """float32[N, 3, H, W] -> a map of outputs for each scale, from the largest image to the smallest.

    pix2pixHD (Wang et al. 2018, section 3.2): discriminators of equal structure and own weights; each copy of the image
    is half as large as the one before, by average pooling. Options as for `PatchGan`.
    """

    def __init__(
        self,
        *,
        scales: int = 2,
        sigmoid: bool = True,
        normalisation: Normalisation = "batch",
        width: int = 64,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.min_image_px = MIN_IMAGE_PX * 2 ** (scales - 1)
        self.scales = nn.ModuleList(
            PatchGan(sigmoid=sigmoid, normalisation=normalisation, width=width, spectral_norm=spectral_norm)
            for _ in range(scales)
        )

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
