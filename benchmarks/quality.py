"""`python -m benchmarks.quality`: PSNR and SSIM of a restored clip, beside its blurred input."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from runtime.errors import DeblurError, InputError
from runtime.frame import Frame
from runtime.metrics import psnr_db, ssim
from runtime.sources import open_source


@dataclass(frozen=True)
class Quality:
    """Means over the frames of a clip."""

    frames: int
    blurred_psnr_db: float
    restored_psnr_db: float
    blurred_ssim: float
    restored_ssim: float


def measure(*, blurred: str, restored: str, sharp: str) -> Quality:
    """Compare two clips with the truth, frame by frame.

    Raises InputError if the clips differ in number, size or time of frames.
    """
    scores = [
        (psnr_db(before, truth), psnr_db(after, truth), ssim(before, truth), ssim(after, truth))
        for before, after, truth in _matched(blurred, restored, sharp)
    ]
    means = np.mean(scores, axis=0)
    return Quality(len(scores), *(round(float(value), 4) for value in means))


def _matched(*clips: str) -> Iterator[tuple[np.ndarray, ...]]:
    with ExitStack() as opened:
        sources = [open_source(clip) for clip in clips]
        for source in sources:
            opened.callback(source.close)
        for index, frames in enumerate(zip_longest(*sources)):
            if None in frames or not _alike(frames):
                facts = ", ".join(f"{f.size[0]}x{f.size[1]} at {f.pts_seconds:.4f} s" if f else "none" for f in frames)
                raise InputError(
                    f"clips differ at frame {index} ({facts})", clips[0], hint="give clips of one recording"
                )
            yield tuple(frame.pixels for frame in frames)


def _alike(frames: tuple[Frame, ...]) -> bool:
    first = frames[0]
    return all(f.size == first.size and abs(f.pts_seconds - first.pts_seconds) < 1e-3 for f in frames)


def table(quality: Quality) -> str:
    """Two rows and their difference, as plain text."""
    gain_db = quality.restored_psnr_db - quality.blurred_psnr_db
    return "\n".join(
        (
            f"{'':9}{'PSNR dB':>9}{'SSIM':>9}   mean of {quality.frames} frames",
            f"{'blurred':9}{quality.blurred_psnr_db:9.2f}{quality.blurred_ssim:9.4f}",
            f"{'restored':9}{quality.restored_psnr_db:9.2f}{quality.restored_ssim:9.4f}",
            f"{'gain':9}{gain_db:+9.2f}{quality.restored_ssim - quality.blurred_ssim:+9.4f}",
        )
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    for name in ("blurred", "restored", "sharp"):
        parser.add_argument(f"--{name}", required=True, metavar="CLIP", help="video, picture or folder of pictures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON too")
    options = parser.parse_args(arguments)
    try:
        quality = measure(blurred=options.blurred, restored=options.restored, sharp=options.sharp)
    except DeblurError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(table(quality))
    if options.json:
        options.json.write_text(json.dumps(asdict(quality), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
