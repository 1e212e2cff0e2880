"""`python -m train.exposures --source CLIP --out DIR`: true-motion pairs out of a sharp clip of many frames a second.

An odd number of consecutive frames is one exposure, their mean is the blurred picture, and the one
in the middle the sharp truth; the longer, the more blur. Light is averaged, as in a camera;
`--responses codes` averages codes, as GOPRO_Large's `blur` was made (Nah et al. 2017).
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from train.data.blur import Image, linear_from_srgb, srgb_from_linear
from train.data.index import DataError
from train.data.pairs import write_pairs
from train.exit_codes import to_its_end

Response = Literal["light", "codes"]
"""What is averaged: linear light, as in a camera, or 8-bit codes, as in GOPRO_Large's `blur`."""


def exposures(
    frames: Iterator[Image], *, lengths: tuple[int, ...], stride: int, responses: tuple[Response, ...]
) -> Iterator[tuple[int, Image, Image]]:
    """Pairs around every `stride`-th frame: the frame's index, the blurred and the sharp uint8[H, W, 3].

    Lengths, in frames, and responses take turns.
    """
    window: deque[Image] = deque(maxlen=max(lengths))
    half = max(lengths) // 2
    made = 0
    for index, frame in enumerate(frames):
        window.append(frame)
        middle = index - half
        if len(window) < max(lengths) or (middle - half) % stride:
            continue
        length = lengths[made % len(lengths)]
        first = half - length // 2
        response = responses[made // len(lengths) % len(responses)]
        yield middle, mean_picture(list(window)[first : first + length], response), window[half]
        made += 1


def mean_picture(frames: list[Image], response: Response) -> Image:
    """One exposure of uint8[H, W, 3] frames."""
    total = np.zeros(frames[0].shape, np.float32)
    for frame in frames:
        total += linear_from_srgb(frame) if response == "light" else frame
    mean: NDArray[np.float32] = total / len(frames)
    return np.rint(srgb_from_linear(mean) if response == "light" else mean).astype(np.uint8)


def frames_of(path: Path) -> Iterator[Image]:
    """The frames of a clip, uint8[H, W, 3] BGR; raises DataError."""
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise DataError(f"cannot be read as a video; give a clip that OpenCV can open: {path}")
    try:
        while True:
            there, frame = video.read()
            if not there:
                return
            yield frame
    finally:
        video.release()


def write_exposures(options: argparse.Namespace) -> None:
    """Write the pairs of a clip, named by the frame in the middle, and say how many."""
    pairs = exposures(
        frames_of(options.source), lengths=options.lengths, stride=options.stride, responses=options.responses
    )
    count = write_pairs(((f"{index:06d}", blurred, sharp) for index, blurred, sharp in pairs), options.out)
    if not count:
        raise DataError(f"the clip has fewer than {max(options.lengths)} frames; give a longer one: {options.source}")
    print(f"{count} pairs: {options.out}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m train.exposures", description=__doc__)
    add = parser.add_argument
    add("--source", type=Path, required=True, metavar="CLIP", help="sharp, of 120 frames a second or more")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for blur/ and sharp/")
    add("--lengths", type=_odd, nargs="+", default=[7, 9, 11, 13], metavar="N", help="frames of an exposure, odd")
    add("--stride", type=int, default=3, metavar="N", help="frames from one exposure to the next (default: 3)")
    add("--responses", nargs="+", choices=get_args(Response), default=["light"], help="what is averaged, in turns")
    options = parser.parse_args(arguments)
    if options.stride < 1:
        parser.error(f"--stride must be at least 1, got {options.stride}")
    options.lengths, options.responses = tuple(options.lengths), tuple(options.responses)
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    return to_its_end(lambda: write_exposures(options))


def _odd(text: str) -> int:
    number = int(text)
    if number < 3 or number % 2 == 0:
        raise argparse.ArgumentTypeError(f"must be odd and at least 3, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
