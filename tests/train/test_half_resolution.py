"""A generator at half the resolution gives what it gives for the reduced image, enlarged and added to the whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from train.models import Generator, create_generator, restore_frames
from train.models.half_resolution import HalfResolution

OPTIONS = {
    "edge": {"widths": (8, 8), "blocks": (1, 1)},
    "edge yuv420": {"widths": (8,), "blocks": (1,), "colour": "yuv420"},
    "two_stage_cnn": {},
}


def make(name: str) -> tuple[Generator, HalfResolution]:
    torch.manual_seed(0)
    generator = create_generator(name.partition(" ")[0], **OPTIONS[name]).eval()
    return generator, HalfResolution(generator).eval()


@pytest.mark.parametrize("name", OPTIONS)
def test_residual_is_that_of_the_reduced_image(name: str) -> None:
    generator, half = make(name)
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        reduced = F.avg_pool2d(image, 2)
        enlarged = F.interpolate(generator(reduced) - reduced, scale_factor=2, mode="bilinear", align_corners=False)
        residual = half(image) - image
    assert enlarged.abs().max() > 0.01
    inner = (..., slice(1, -1), slice(1, -1))  # the border is enlarged with zeros around it
    torch.testing.assert_close(residual[inner], enlarged[inner], rtol=0, atol=1e-5)
    assert (residual.abs() <= enlarged.abs() + 1e-5).all()


def test_frames_of_any_size_are_padded_to_twice_the_multiple() -> None:
    generator, half = make("edge")
    assert (half.multiple_of, half.patch_px) == (2 * generator.multiple_of, 2 * generator.patch_px)
    frames = torch.randint(0, 256, (1, 37, 50, 3), dtype=torch.uint8)
    assert restore_frames(half, frames).shape == frames.shape


def test_what_the_generator_does_not_change_keeps_its_detail() -> None:
    _, half = make("edge")
    with torch.no_grad():
        half.generator.tail.weight.zero_()
        half.generator.tail.bias.zero_()
        image = torch.rand(1, 3, 32, 32)
        assert torch.equal(half(image), image)
