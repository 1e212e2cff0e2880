"""`swin_deblur`: a pretrained Swin encoder, a 1x1 bottleneck, two transposed convolutions, a residual."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SwinConfig, SwinModel

from train.models.base import ChannelOrder, Generator
from train.models.encoders import ImageNetNormalisation, create_encoder

Size = Literal["tiny", "small", "base"]
_WIDTHS: dict[Size, int] = {"tiny": 96, "small": 96, "base": 128}
_DEPTHS: dict[Size, tuple[int, ...]] = {"tiny": (2, 2, 6, 2), "small": (2, 2, 18, 2), "base": (2, 2, 18, 2)}
_CHANNELS_PER_HEAD = 32
_WINDOW = 7
_BOTTLENECK = 128


class SwinDeblur(Generator):
    """Section II of the DeblurGAN-v2 paper: Swin encoder (Liu et al. 2021), bottleneck, decoder.

    The last feature map of the base encoder has 1024 channels at 1/32 of the resolution. A 1x1 convolution reduces
    them to 128, two transposed convolutions with ReLU enlarge the map, a convolution makes three channels, and a
    bilinear resize gives them the size of the input, to which they are added. The paper states no strides. With 2 and
    2 the residual would have 1/8 of the resolution, too little for an edge; here they are 8 and 4, which gives full
    resolution, and the resize changes nothing.

    `size`: tiny, small or base. `pretrained`: folder or hub name, None for random weights. `width`: number of channels
    of the first stage, a multiple of 32; None: that of the size. `strides`: strides of the two transposed
    convolutions, even numbers.
    """

    channel_order: ClassVar[ChannelOrder] = "RGB"
    pixel_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    multiple_of: int = 32 * _WINDOW
    """The deepest map must consist of whole windows: the Swin of transformers fails on a smaller one."""
    checkpointed_parts: ClassVar[tuple[str, ...]] = (r"encoder\.encoder\.layers\.\d+\.blocks\.\d+", r"decoder")

    def __init__(
        self,
        size: Size = "base",
        pretrained: str | None = None,
        width: int | None = None,
        strides: tuple[int, int] = (8, 4),
    ) -> None:
        super().__init__()
        if size not in get_args(Size):
            raise ValueError(f"size must be one of {', '.join(get_args(Size))}, got {size!r}")
        width = width or _WIDTHS[size]
        if width % _CHANNELS_PER_HEAD or width < 1:
            raise ValueError(f"width must be a multiple of {_CHANNELS_PER_HEAD}, got {width}")
        if len(strides) != 2 or any(stride < 2 or stride % 2 for stride in strides):
            raise ValueError(f"strides must be two even numbers, got {strides}")
        heads = width // _CHANNELS_PER_HEAD
        config = SwinConfig(
            embed_dim=width,
            depths=_DEPTHS[size],
            num_heads=tuple(heads * 2**stage for stage in range(4)),
            window_size=_WINDOW,
            attn_implementation="eager",  # type: ignore[call-arg]  # the one that can be exported to ONNX
        )
        self.normalisation = ImageNetNormalisation()
        self.encoder = create_encoder(SwinModel, config, pretrained=pretrained, add_pooling_layer=False)
        self.bottleneck = nn.Conv2d(8 * width, _BOTTLENECK, 1)
        first, second = strides
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(_BOTTLENECK, 64, 2 * first, stride=first, padding=first // 2),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 2 * second, stride=second, padding=second // 2),
            nn.ReLU(),
            nn.Conv2d(32, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.shape[2] // 32, x.shape[3] // 32
        tokens = self.encoder(self.normalisation(x)).last_hidden_state  # [N, rows * columns, 8 * width]
        features = tokens.transpose(1, 2).unflatten(2, (rows, columns))  # [N, 8 * width, H/32, W/32]
        residual = self.decoder(self.bottleneck(features))  # [N, 128, H/32, W/32] -> [N, 3, H, W]
        return x + F.interpolate(residual, size=x.shape[2:], mode="bilinear", align_corners=False)
