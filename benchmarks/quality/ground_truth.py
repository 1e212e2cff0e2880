"""Frames whose truth is known: clips filmed twice, and folders of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from runtime.errors import InputError
from runtime.frame import Frame, Pixels
from runtime.image_files import is_image, natural_order, read_image
from runtime.sources import open_source

LEAST_PX = 11
"""SSIM's window."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A frame as it was filmed, as it should be, and as it was restored elsewhere: uint8[H, W, 3] BGR each."""

    name: str
    blurred: Pixels
    sharp: Pixels
    restored: tuple[Pixels, ...] = ()


def from_clips(*, blurred: str, sharp: str, restored: Sequence[str] = ()) -> Iterator[Known]:
    """Frames of clips, or of folders that hold a clip's frames, in their order.

    Raises InputError if they differ in number, size or time of frames.
    """
    clips = (blurred, sharp, *restored)
    with ExitStack() as opened:
        sources = [open_source(clip) for clip in clips]
        for source in sources:
            opened.callback(source.close)
        for index, frames in enumerate(zip_longest(*sources)):
            if None in frames or not _alike(frames):
                facts = ", ".join(f"{f.size[0]}x{f.size[1]} at {f.pts_seconds:.4f} s" if f else "none" for f in frames)
                raise InputError(
                    f"clips differ at frame {index} ({facts})", blurred, hint="give clips of one recording"
                )
            _require_size(frames[0].pixels, blurred)
            name = frames[0].name or f"frame{index:05}"
            yield Known(
                name=name,
                blurred=frames[0].pixels,
                sharp=frames[1].pixels,
                restored=tuple(frame.pixels for frame in frames[2:]),
            )


def from_pairs(folder: Path, *, restored: Sequence[str] = ()) -> Iterator[Known]:
    """Pictures of `blur/` with those of the same name in `sharp/` and in the folders `restored`; any suffix.

    Raises InputError for a missing partner or one of another size.
    """
    blurred = sorted((path for path in (folder / "blur").glob("*") if is_image(path)), key=natural_order)
    if not blurred:
        raise InputError("no pairs found", folder, hint="give a folder with blur/ and sharp/ in it")
    for path in blurred:
        partners = [_partner(Path(place), path) for place in (folder / "sharp", *restored)]
        picture, sharp, *others = (read_image(each) for each in (path, *partners))
        for partner, each in zip(partners, (sharp, *others), strict=True):
            if each.shape != picture.shape:
                raise InputError("differs in size from its blurred picture", partner, hint="scale them alike")
        _require_size(picture, path)
        yield Known(name=path.stem, blurred=picture, sharp=sharp, restored=tuple(others))


def _partner(folder: Path, path: Path) -> Path:
    found = [each for each in sorted(folder.glob("*")) if each.stem == path.stem and is_image(each)]
    if len(found) != 1:
        raise InputError(f"{len(found)} pictures named {path.stem}, expected one", folder, hint="complete the pairs")
    return found[0]


def _require_size(picture: Pixels, where: str | Path) -> None:
    if min(picture.shape[:2]) < LEAST_PX:
        width, height = picture.shape[1], picture.shape[0]
        raise InputError(f"{width}x{height} is too small to compare", where, hint=f"SSIM needs {LEAST_PX}x{LEAST_PX}")


def _alike(frames: tuple[Frame, ...]) -> bool:
    first = frames[0]
    return all(f.size == first.size and abs(f.pts_seconds - first.pts_seconds) < 1e-3 for f in frames)
