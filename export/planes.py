"""Frames as planes of 4:2:0 for an export: made from images, and restored with PyTorch as the reference."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from runtime.colour import BT709
from runtime.frame import Pixels
from runtime.yuv420 import Yuv420
from train.models import Generator
from train.models.base import restore_nchw

_KR, _KG, _KB = 0.2126, 0.7152, 0.0722


def planes_from_bgr(image: Pixels) -> Pixels:
    """Return uint8[H, W, 3] BGR as planes uint8[3 H / 2, W]; an odd last row or column is left out."""
    height, width = (side // 2 * 2 for side in image.shape[:2])
    return Yuv420.from_bgr(np.ascontiguousarray(image[:height, :width]), BT709).planes


def bgr_from_planes(planes: Pixels) -> Pixels:
    """Return planes of `planes_from_bgr` as uint8[H, W, 3] BGR."""
    return Yuv420(planes, BT709).bgr


@torch.inference_mode()
def restore_planes(generator: Generator, planes: Pixels) -> Pixels:
    """Restore planes uint8[3 H / 2, W] with PyTorch: the network sees their colours, and its residual is added to them.

    Colours are computed in float and not clipped: limited-range BT.709 (ITU-R BT.709-6, items 3.2 to 3.5), the chroma
    of a square of 2x2 pixels repeated for each, and averaged on the way back.
    """
    frame = Yuv420(planes, BT709)
    luma = torch.from_numpy((frame.luma - 16.0) / 219)[None]  # [1, H, W], 0..1
    chroma = torch.from_numpy((frame.chroma - 128.0) / 224)  # [2, H/2, W/2], -0.5..0.5
    u, v = chroma.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)[:, None]
    red, blue = luma + 2 * (1 - _KR) * v, luma + 2 * (1 - _KB) * u
    colours = [red, (luma - _KR * red - _KB * blue) / _KG, blue]
    residual = _compute_residual(generator, torch.cat(colours))
    residual_luma = (_KR * residual[0] + _KG * residual[1] + _KB * residual[2])[None]
    differences = torch.cat([residual[2:] - residual_luma, residual[:1] - residual_luma])
    residual_chroma = F.avg_pool2d(differences, 2) / (2 * (1 - torch.tensor([_KB, _KR])))[:, None, None]
    restored = [frame.luma + 219 * residual_luma[0].numpy(), frame.chroma + 224 * residual_chroma.numpy()]
    values = np.concatenate([plane.reshape(-1, planes.shape[1]) for plane in restored])
    result: Pixels = np.rint(values.clip(0, 255)).astype(np.uint8)
    return result


def _compute_residual(generator: Generator, rgb: Tensor) -> Tensor:
    """Return what a network adds to an image float64[3, H, W] RGB in 0..1, in the same units."""
    order = [0, 1, 2] if generator.channel_order == "RGB" else [2, 1, 0]
    source = rgb[order].float()[None]
    return (restore_nchw(generator, source, generator) - source)[0].double()[order]
