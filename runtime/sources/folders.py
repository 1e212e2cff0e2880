"""Folders and patterns of images as a source."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Sequence
from pathlib import Path

from runtime.errors import InputError
from runtime.image_files import is_image
from runtime.patterns import find_files, folder_before_wildcard
from runtime.sources.images import ImageSource
from runtime.video_files import is_video


def open_folder(folder: Path, outputs: Sequence[Path]) -> ImageSource:
    """Return the source of the images in a folder and in the folders in it, without hidden ones.

    Images below one of the folders `outputs` are left out: an earlier run has written them. Raises InputError if there
    are no images.
    """
    files = find_files(f"{glob.escape(str(folder))}/**/*")
    return _select_images(files, folder, root=folder, outputs=outputs)


def open_pattern(pattern: str, outputs: Sequence[Path]) -> ImageSource:
    """Return the source of the images that match a pattern, as `open_folder` does."""
    root = folder_before_wildcard(Path(pattern))
    return _select_images(find_files(pattern), Path(pattern), root=root, outputs=outputs)


def _select_images(files: list[Path], place: Path, *, root: Path, outputs: Sequence[Path]) -> ImageSource:
    written = [output.resolve() for output in outputs if output.is_dir()]
    earlier = [folder for folder in written if not root.resolve().is_relative_to(folder)]
    own = [file for file in files if not any(file.resolve().is_relative_to(folder) for folder in earlier)]
    images = [file for file in own if is_image(file)]
    if images:
        return ImageSource(images, name=str(place), root=root)
    if any(is_video(file) for file in own):
        command = f"python -m runtime.batch --source {shlex.quote(str(place))} --out DIR"
        raise InputError("no images found, but videos", place, hint=f"give one of them, or restore all with {command}")
    raise InputError("no images found", place, hint="give a video, an image, or a folder or pattern of images")
