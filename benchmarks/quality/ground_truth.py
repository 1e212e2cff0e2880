"""Frames with known ground truth: clips that exist blurred and sharp, and folders of image pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from runtime.errors import InputError
from runtime.frame import Frame, Pixels, Size
from runtime.image_files import is_image, natural_order, read_image
from runtime.metrics import SSIM_MIN_PX
from runtime.sources import open_source


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A blurred frame, its sharp ground truth, and restorations of it from elsewhere: uint8[H, W, 3] BGR each."""

    name: str
    blurred: Pixels
    sharp: Pixels
    restored: tuple[Pixels, ...] = ()


def read_clips(*, blurred: str, sharp: str, restored: Sequence[str] = ()) -> Iterator[Sample]:
    """Read videos, or folders that hold the frames of a video, frame by frame.

    Raises InputError if the clips differ in the number, size or time of their frames, or change their size.
    """
    clips = (blurred, sharp, *restored)
    size: Size | None = None
    with ExitStack() as stack:
        sources = [open_source(clip) for clip in clips]
        for source in sources:
            stack.callback(source.close)
        for index, frames in enumerate(zip_longest(*sources)):
            if None in frames or not _are_alike(frames):
                facts = ", ".join(f"{f.size[0]}x{f.size[1]} at {f.pts_seconds:.4f} s" if f else "none" for f in frames)
                raise InputError(
                    f"clips differ at frame {index} ({facts})", blurred, hint="give clips of the same recording"
                )
            _require_ssim_size(frames[0].bgr, blurred)
            size = size or frames[0].size
            if frames[0].size != size:
                (width, height), (new_width, new_height) = size, frames[0].size
                what = f"the clip changes its size at frame {index} ({width}x{height} to {new_width}x{new_height})"
                raise InputError(what, blurred, hint="give a clip of one size, or single images with --pairs")
            yield Sample(
                name=frames[0].file.stem if frames[0].file else f"frame{index:05}",
                blurred=frames[0].bgr,
                sharp=frames[1].bgr,
                restored=tuple(frame.bgr for frame in frames[2:]),
            )


def read_pairs(folder: Path, *, restored: Sequence[str] = ()) -> Iterator[Sample]:
    """Read the images of `blur/` and those of the same name in `sharp/` and in the folders `restored`.

    The suffixes may differ. Raises InputError if an image is missing, exists twice, or differs in size.
    """
    paths = sorted((path for path in (folder / "blur").glob("*") if is_image(path)), key=natural_order)
    if not paths:
        raise InputError("no pairs found", folder, hint="give a folder that contains blur/ and sharp/")
    for path in paths:
        partners = [_find_partner(place, path) for place in (folder / "sharp", *map(Path, restored))]
        blurred, sharp, *others = (read_image(file) for file in (path, *partners))
        for partner, image in zip(partners, (sharp, *others), strict=True):
            if image.shape != blurred.shape:
                raise InputError(
                    "differs in size from its blurred image", partner, hint="scale both images to the same size"
                )
        _require_ssim_size(blurred, path)
        yield Sample(name=path.stem, blurred=blurred, sharp=sharp, restored=tuple(others))


def _find_partner(folder: Path, path: Path) -> Path:
    partners = [file for file in sorted(folder.glob("*")) if file.stem == path.stem and is_image(file)]
    if len(partners) != 1:
        raise InputError(
            f"{len(partners)} images named {path.stem}, expected one", folder, hint="give one image for each pair"
        )
    return partners[0]


def _require_ssim_size(image: Pixels, path: str | Path) -> None:
    height, width = image.shape[:2]
    if min(height, width) < SSIM_MIN_PX:
        hint = f"SSIM needs at least {SSIM_MIN_PX}x{SSIM_MIN_PX}"
        raise InputError(f"{width}x{height} is too small to compare", path, hint=hint)


def _are_alike(frames: tuple[Frame, ...]) -> bool:
    first = frames[0]
    return all(f.size == first.size and abs(f.pts_seconds - first.pts_seconds) < 1e-3 for f in frames)
