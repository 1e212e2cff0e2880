"""Image files as a sink: one file for each frame."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import UsageError, printable
from runtime.files import output_error, require_distinct_partial_names, write_whole
from runtime.frame import Frame
from runtime.image_output import encode_image
from runtime.sources.base import SourceInfo


class ImageSink:
    """Writes each frame as an image into a folder, or the only frame to an image file (`single`).

    In a folder, images keep the names and formats of their source files, and their tree below the folder of the
    source. Frames of a video are numbered and written as PNG, which states their colours: `frame_000001.png`. Each file
    appears when it is complete, so there is nothing for `close` to finish. Raises UsageError if two images have the
    same output, if an output is an image of the source, or has the name of another one while that is unfinished.
    """

    def __init__(self, path: Path, source: SourceInfo, *, single: bool) -> None:
        self._path = path
        self._single = single
        self._root = source.root
        self._format = source.format
        self._lost: dict[str, list[str]] = {}
        """Names of the images that could not be kept completely, by what was lost."""
        self._written = 0
        if not single:
            self._require_own_outputs(source.files)
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise output_error(path, error) from error

    @property
    def warnings(self) -> list[str]:
        """Sentences about contents that the formats of the outputs cannot hold, one for each kind of loss."""
        return [
            *self._format.depth_warnings(),
            *(self._format.tag_warnings("images") if self._single and self._path.suffix.lower() != ".png" else []),
            *(
                f"{what}: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                for what, names in self._lost.items()
            ),
        ]

    def write(self, frame: Frame) -> None:
        """Write the frame as an image; raises OutputError if it cannot be encoded or written."""
        path = self._path if self._single else self._target(frame.file)
        content, lost = encode_image(path, frame.bgr, frame.file, colour=self._format.colour)
        write_whole(path, content)
        self._written += 1
        for what in lost:
            self._lost.setdefault(what, []).append(printable(path.name))

    def close(self, *, complete: bool) -> str | None:
        """Return the folder or file, or None if no frame was written."""
        return str(self._path) if self._written else None

    def _target(self, file: Path | None) -> Path:
        """Return the path of the next image, which was read from `file`."""
        if file is None:
            return self._path / f"frame_{self._written + 1:06d}.png"
        if self._root is not None and file.is_relative_to(self._root):
            return self._path / file.relative_to(self._root)
        return self._path / file.name

    def _require_own_outputs(self, files: tuple[Path, ...]) -> None:
        sources = {file.resolve() for file in files}
        targets: dict[Path, Path] = {}
        for file in files:
            target = self._target(file)
            if target.resolve() in sources:
                raise UsageError("output is the source", target, hint="give another output")
            if targets.setdefault(target, file) != file:
                raise UsageError(
                    f"{printable(targets[target])} and another image have the output {printable(target)}",
                    file,
                    hint="give one of them another output",
                )
        require_distinct_partial_names(targets)
