"""Conversion between YUV and BGR: colours are kept, and the tags of a stream are followed."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from runtime.colour import bgr_from_video_frame, video_frame_from_bgr
from tests.conftest import make_image


@pytest.mark.parametrize(("pixel_format", "max_error"), [("yuv444p", 2), ("yuv420p", 6)])
def test_round_trip_keeps_colours_without_bias(pixel_format: str, max_error: int) -> None:
    pixels = make_image(320, 240)
    converted = bgr_from_video_frame(video_frame_from_bgr(pixels, pixel_format=pixel_format))
    error = converted.astype(int) - pixels
    assert np.abs(error).max() <= max_error
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.3


def uniform(blue: int, green: int, red: int, *, height: int = 48) -> np.ndarray:
    return np.full((height, 64, 3), (blue, green, red), np.uint8)


@pytest.mark.parametrize(("height", "colorspace"), [(48, Colorspace.ITU601), (720, Colorspace.ITU709)])
def test_untagged_streams_have_the_matrix_that_players_assume(height: int, colorspace: int) -> None:
    pixels = uniform(40, 200, 90, height=height)
    frame = av.VideoFrame.from_ndarray(pixels, format="bgr24").reformat(format="yuv444p", dst_colorspace=colorspace)
    frame.colorspace = 2
    assert np.abs(bgr_from_video_frame(frame).astype(int) - pixels).max() <= 3


def test_full_range_streams_are_not_stretched() -> None:
    pixels = uniform(128, 128, 128)
    frame = av.VideoFrame(64, 48, "yuv420p")
    for plane, value in zip(frame.planes, (128, 128, 128), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.color_range = ColorRange.JPEG
    assert np.abs(bgr_from_video_frame(frame).astype(int) - pixels).max() <= 1


def test_the_matrix_is_that_of_bt709() -> None:
    """The luma of pure green in limited range is 16 + 219 * 0.7152 (ITU-R BT.709)."""
    frame = video_frame_from_bgr(uniform(0, 255, 0), pixel_format="yuv444p")
    luma = np.frombuffer(frame.planes[0], np.uint8)[0]
    assert luma == pytest.approx(16 + 219 * 0.7152, abs=1)
    assert (frame.colorspace, frame.color_range) == (Colorspace.ITU709, ColorRange.MPEG)


def test_gray_and_deep_frames_become_8_bit_bgr() -> None:
    gray = av.VideoFrame.from_ndarray(cv2.cvtColor(make_image(64, 48), cv2.COLOR_BGR2GRAY), format="gray")
    deep = av.VideoFrame.from_ndarray(make_image(64, 48), format="bgr24").reformat(format="yuv420p10le")
    for frame in (gray, deep):
        pixels = bgr_from_video_frame(frame)
        assert (pixels.shape, pixels.dtype) == ((48, 64, 3), np.uint8)
