"""`python -m train.exposures --source CLIP --out DIR`: make pairs with true motion from a sharp, fast clip.

The mean of an odd number of consecutive frames is the blurred image of an exposure, and the frame in the middle is its
sharp ground truth; a longer exposure has more blur. Light is averaged, as in a camera; `--responses codes` averages
8-bit codes, as GOPRO_Large's `blur` was made (Nah et al. 2017).
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.arguments import whole_number_in
from runtime.files import has_utf8_name
from runtime.parser import CommandParser
from train.command import run_command
from train.data.blur import Image, linear_from_srgb, srgb_from_linear
from train.data.pairs import write_pairs
from train.errors import DataError

_MAX_LENGTH = 9_999
Response = Literal["light", "codes"]
"""Values that are averaged: linear light, as in a camera, or 8-bit codes, as in GOPRO_Large's `blur`."""


@dataclass(frozen=True)
class ExposureConfig:
    """Exposures to take of a clip; lengths and responses alternate from one exposure to the next."""

    lengths: tuple[int, ...]
    """Odd numbers of frames."""
    stride: int
    """Number of frames from the middle of one exposure to that of the next."""
    responses: tuple[Response, ...]


def iterate_exposures(frames: Iterator[Image], config: ExposureConfig) -> Iterator[tuple[int, Image, Image]]:
    """Yield exposures: index of the middle frame, blurred image, sharp image, uint8[H, W, 3] each."""
    max_length = max(config.lengths)
    window: deque[Image] = deque(maxlen=max_length)
    half = max_length // 2
    count = 0
    for index, frame in enumerate(frames):
        window.append(frame)
        middle = index - half
        if len(window) < max_length or (middle - half) % config.stride:
            continue
        length = config.lengths[count % len(config.lengths)]
        first = half - length // 2
        response = config.responses[count // len(config.lengths) % len(config.responses)]
        yield middle, average_frames(list(window)[first : first + length], response), window[half]
        count += 1


def average_frames(frames: list[Image], response: Response) -> Image:
    """Return the mean of uint8[H, W, 3] frames, rounded to uint8."""
    total = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        total += linear_from_srgb(frame) if response == "light" else frame
    mean: NDArray[np.float32] = (total / len(frames)).astype(np.float32, copy=False)
    rounded: Image = np.rint(srgb_from_linear(mean) if response == "light" else mean).astype(np.uint8)
    return rounded


def read_frames(clip: Path) -> Iterator[Image]:
    """Yield the frames of a clip, uint8[H, W, 3] BGR; raises DataError if it cannot be opened."""
    if not has_utf8_name(clip):
        raise DataError("name of the clip is not UTF-8", clip, hint="rename it")
    video = cv2.VideoCapture(str(clip))
    if not video.isOpened():
        raise DataError("cannot be read as a video", clip, hint="give a clip that OpenCV can open")
    try:
        while True:
            has_frame, frame = video.read()
            if not has_frame:
                return
            yield np.asarray(frame, np.uint8)
    finally:
        video.release()


def write_exposures(clip: Path, *, out: Path, config: ExposureConfig) -> int:
    """Write the pairs of a clip, named by the index of the middle frame, and return their number.

    Raises DataError if the clip cannot be read or is too short, UsageError if `out` holds pairs, and OutputError.
    """
    exposures = iterate_exposures(read_frames(clip), config)
    count = write_pairs(((f"{index:06d}", blurred, sharp) for index, blurred, sharp in exposures), out)
    if not count:
        raise DataError(f"the clip has fewer than {max(config.lengths)} frames", clip, hint="give a longer one")
    return count


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m train.exposures`."""
    parser = CommandParser("train.exposures", description=__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, metavar="CLIP", help="sharp clip of 120 frames per second or more")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for the pairs, in blur/ and sharp/")
    add(
        "--lengths",
        type=_parse_odd,
        nargs="+",
        default=[7, 9, 11, 13],
        metavar="N",
        help="odd lengths of the exposures in frames, used alternately (default: 7 9 11 13)",
    )
    add(
        "--stride",
        type=whole_number_in(1, 10**6),
        default=3,
        metavar="N",
        help="frames from one exposure to the next (default: 3)",
    )
    add(
        "--responses",
        nargs="+",
        choices=get_args(Response),
        default=["light"],
        help="values to average, used alternately: linear light, or 8-bit codes (default: light)",
    )
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit with code 2 if it is wrong."""
    return build_parser().parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m train.exposures` and return its exit code."""
    options = parse(arguments)
    config = ExposureConfig(tuple(options.lengths), options.stride, tuple(options.responses))

    def command(_: object) -> None:
        count = write_exposures(options.source, out=options.out, config=config)
        print(f"{count} pairs: {options.out}")

    return run_command(command, debug=options.debug)


def _parse_odd(text: str) -> int:
    number = int(text)
    if not 3 <= number <= _MAX_LENGTH or number % 2 == 0:
        raise argparse.ArgumentTypeError(f"expected an odd number from 3 to {_MAX_LENGTH}, got {text[:40]}")
    return number


if __name__ == "__main__":
    sys.exit(main())
