"""`python -m benchmarks.eye_crops`: draw docs/gan.jpg, crops restored by `edge-l` and by `edge-l-gan` side by side.

Each row is a crop of a photograph of scikit-image, enlarged to 200 %: blurred along a camera path, restored by both
engines, and the ground truth.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.assets.calibration_frames import load_photograph
from runtime import open_engine
from runtime.cli import run_cli
from runtime.files import write_whole
from runtime.frame import Pixels
from runtime.parser import CommandParser
from train.data.blur import BlurConfig, make_blurred_pair

ENGINES = ("edge-l", "edge-l-gan")
SIDE_PX = 128
ENLARGEMENT = 2
SEED = 3
_TITLE_PX, _GAP_PX = 28, 4


class Crop(NamedTuple):
    """A part of a photograph, and the length of its blur."""

    photo: str
    left: int
    top: int
    length_px: float


CROPS = (
    Crop("page", 40, 20, 6.0),
    Crop("astronaut", 160, 60, 10.0),
    Crop("grass", 200, 200, 10.0),
    Crop("rocket", 250, 60, 10.0),
    Crop("coffee", 330, 150, 14.0),
)
"""Text, a face, foliage, a sky with fine lines, and smooth surfaces."""


def draw_table(engines: tuple[str, ...] = ENGINES) -> Pixels:
    """Return the table as uint8[H, W, 3] BGR: a row for each crop; blurred, one column for each engine, sharp."""
    columns: list[list[Pixels]] = []
    pairs = [_blur(crop) for crop in CROPS]
    columns.append([_cut(blurred, crop) for crop, (blurred, _) in zip(CROPS, pairs, strict=True)])
    for name in engines:
        with open_engine(name) as engine:
            restored = [engine.infer(blurred[np.newaxis])[0] for blurred, _ in pairs]
        columns.append([_cut(image, crop) for crop, image in zip(CROPS, restored, strict=True)])
    columns.append([_cut(sharp, crop) for crop, (_, sharp) in zip(CROPS, pairs, strict=True)])
    titles = ("blurred", *engines, "sharp")
    return np.hstack([_stack(title, images) for title, images in zip(titles, columns, strict=True)])


def _blur(crop: Crop) -> tuple[Pixels, Pixels]:
    """Return the whole photograph blurred, and its ground truth."""
    config = BlurConfig(length_px=(crop.length_px, crop.length_px), object_share=0.0, jpeg_share=0.0)
    photo, margin = load_photograph(crop.photo), config.margin_px
    padded = cv2.copyMakeBorder(photo, margin, margin, margin, margin, cv2.BORDER_REFLECT_101)
    return make_blurred_pair(np.asarray(padded, np.uint8), config=config, rng=np.random.default_rng(SEED))


def _cut(image: Pixels, crop: Crop) -> Pixels:
    part = image[crop.top : crop.top + SIDE_PX, crop.left : crop.left + SIDE_PX]
    size = (SIDE_PX * ENLARGEMENT, SIDE_PX * ENLARGEMENT)
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _stack(title: str, images: list[Pixels]) -> Pixels:
    """Return the images of a column below each other, with a title and white gaps."""
    width = SIDE_PX * ENLARGEMENT + _GAP_PX
    head = np.full((_TITLE_PX, width, 3), 255, np.uint8)
    cv2.putText(head, title, (4, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    white = (255, 255, 255)
    cells = [cv2.copyMakeBorder(image, 0, _GAP_PX, 0, _GAP_PX, cv2.BORDER_CONSTANT, value=white) for image in images]
    return np.vstack([head, *cells])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m benchmarks.eye_crops` and return its exit code."""
    parser = CommandParser("benchmarks.eye_crops", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("docs/gan.jpg"), metavar="F", help="image to write (default: docs/gan.jpg)"
    )
    path: Path = parser.parse_args(arguments).out

    def command(_: object) -> int:
        _, content = cv2.imencode(".jpg", draw_table(), [cv2.IMWRITE_JPEG_QUALITY, 88])
        write_whole(path, content.tobytes())
        print(path)
        return 0

    return run_cli(command, debug=False)
