"""`python -m benchmarks.demo_clip`: render the demo clip and its ground truth.

A hand-held camera moves along a wall of public-domain photographs. Each blurred frame is the average of sub-frames in
linear light, with sensor noise; its ground truth is the sharp view at the middle of the exposure. Needs scikit-image,
which contains the photographs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data

from benchmarks.assets import CLIPS
from runtime.frame import Frame, Pixels
from runtime.parser import CommandParser
from runtime.sinks.video import VideoSink
from runtime.sources.base import SourceInfo
from train.data.blur import Linear, linear_from_srgb, srgb_from_linear

WIDTH, HEIGHT = 640, 360
FRAMES, RATE_FPS = 100, 25
SHUTTER_SHARE = 0.5
"""Exposure time as a share of the frame period."""
SUB_FRAMES = 24
NOISE_SIGMA = 1.5
"""Standard deviation of the sensor noise in 8-bit codes."""
SEED = 7
_TIME_BASE = Fraction(1, 12_800)
_AUDIO_RATE_HZ = 48_000


def draw_wall() -> Pixels:
    """Return a brick wall with photographs on it, uint8[480, W, 3] BGR; W is about three frames wide.

    All images are from scikit-image: astronaut and Hubble deep field (NASA, public domain), rocket
    (SpaceX), coffee (Rachel Michetti), cat (Stefan van der Walt) and brick (CC0).
    """
    brick = cv2.resize(data.brick(), (320, 320), interpolation=cv2.INTER_AREA)
    wall = np.tile(cv2.merge((brick // 2 + 20, brick // 2 + 40, brick // 2 + 70)), (2, 8, 1))[:480]
    left = 60
    for photo in (data.rocket(), data.astronaut(), data.coffee(), data.hubble_deep_field(), data.chelsea()):
        height = 300
        width = round(photo.shape[1] * height / photo.shape[0])
        image = cv2.cvtColor(cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)
        framed = cv2.copyMakeBorder(image, 8, 8, 8, 8, cv2.BORDER_CONSTANT, value=(24, 30, 36))
        wall[82 : 82 + height + 16, left : left + width + 16] = framed
        left += width + 16 + 45
    return np.ascontiguousarray(wall[:, : left + 15])


def move_camera(seconds: NDArray[np.float64], *, wall_width: int, seed: int = SEED) -> NDArray[np.float64]:
    """Return the pose of a hand-held camera at each time: float64[T, 3] of x, y in pixels and roll in degrees.

    The camera moves along the wall at an uneven speed, with a hand tremor of 1.5 to 9 Hz.
    """
    rng = np.random.default_rng(seed)
    duration = FRAMES / RATE_FPS
    phase = seconds / duration
    walk = phase - 0.07 * np.sin(4 * np.pi * phase)
    path = np.column_stack((walk * (wall_width - WIDTH - 60) + 30, np.full_like(seconds, 60.0), np.zeros_like(seconds)))
    for frequency_hz in (1.5, 3.0, 5.0, 9.0):
        amplitude = np.array([12.0, 10.0, 0.7]) * rng.uniform(0.6, 1.0, 3) / frequency_hz
        path += amplitude * np.sin(2 * np.pi * (frequency_hz * seconds[:, np.newaxis] + rng.uniform(0, 1, 3)))
    return path


def render_view(wall: Linear, pose: NDArray[np.float64]) -> Linear:
    """Return the view of the camera at one moment, float32[360, 640, 3] in linear light."""
    x, y, roll = pose
    transform = cv2.getRotationMatrix2D((x + WIDTH / 2, y + HEIGHT / 2), roll, 1.0)
    transform[:, 2] -= (x, y)
    view = cv2.warpAffine(wall, transform, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(view, np.float32)


def render_frames() -> Iterator[tuple[Pixels, Pixels]]:
    """Yield the blurred and the sharp frames of the clip, uint8[360, 640, 3] BGR each."""
    wall = draw_wall()
    light = linear_from_srgb(wall)
    rng = np.random.default_rng(SEED)
    for index in range(FRAMES):
        middle = (index + 0.5) / RATE_FPS
        offsets = (np.arange(SUB_FRAMES) + 0.5) / SUB_FRAMES - 0.5
        path = move_camera(middle + offsets * SHUTTER_SHARE / RATE_FPS, wall_width=wall.shape[1])
        total = sum((render_view(light, pose) for pose in path), np.zeros((HEIGHT, WIDTH, 3), np.float32))
        noise = rng.normal(0, NOISE_SIGMA, total.shape)
        blurred = srgb_from_linear(np.asarray(total / SUB_FRAMES, np.float32)) + noise
        sharp = srgb_from_linear(render_view(light, move_camera(np.array([middle]), wall_width=wall.shape[1])[0]))
        yield _to_codes(blurred), _to_codes(sharp)


def render_sound(path: Path) -> None:
    """Write a chord of two seconds, twice, as AAC: enough to hear whether sound and video stay in sync."""
    seconds = np.arange(FRAMES * _AUDIO_RATE_HZ // RATE_FPS) / _AUDIO_RATE_HZ
    envelope = np.exp(-1.5 * (seconds % 2.0)) * np.minimum(1.0, (seconds % 2.0) / 0.01)
    chord = sum(np.sin(2 * np.pi * hertz * seconds) for hertz in (261.63, 329.63, 392.0))
    samples = (0.12 * envelope * chord).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=_AUDIO_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate = _AUDIO_RATE_HZ
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def render_clips(folder: Path) -> None:
    """Write `demo_blurred.mp4` (with sound) and `demo_sharp.mp4` into a folder."""
    with tempfile.TemporaryDirectory() as scratch:
        sound = Path(scratch) / "sound.m4a"
        render_sound(sound)
        without_sound = SourceInfo(name="demo", time_base=_TIME_BASE, frame_rate=Fraction(RATE_FPS))
        with_sound = SourceInfo(name="demo", time_base=_TIME_BASE, frame_rate=Fraction(RATE_FPS), audio=sound)
        blurred_clip = VideoSink(folder / "demo_blurred.mp4", with_sound)
        sharp_clip = VideoSink(folder / "demo_sharp.mp4", without_sound)
        for index, images in enumerate(render_frames()):
            pts = round(index / RATE_FPS / _TIME_BASE)
            for sink, pixels in zip((blurred_clip, sharp_clip), images, strict=True):
                sink.write(Frame(pixels=pixels, pts=pts, time_base=_TIME_BASE, captured_at=0.0))
        for sink in (blurred_clip, sharp_clip):
            print(sink.close(complete=True))


def _to_codes(values: NDArray[np.floating]) -> Pixels:
    codes: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return codes


def main() -> None:
    """Run the command line of `python -m benchmarks.demo_clip`."""
    parser = CommandParser("benchmarks.demo_clip", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=CLIPS, metavar="DIR", help="folder for the two clips (default: benchmarks/clips)"
    )
    render_clips(parser.parse_args().out)
