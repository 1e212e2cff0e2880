"""The process that decodes and sharpens uploads: a job a line on standard input, what becomes of it on standard output.

It lives as long as its input is open, keeps its engines loaded, and may be killed at any time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from queue import Queue
from typing import Any

import cv2
import numpy as np

from runtime.engines import DEFAULT_SIZE, Engine, open_engine
from runtime.engines.timing import trial_frame
from runtime.errors import DeblurError, InputError, is_out_of_memory
from runtime.frame import Frame, Pixels
from runtime.image_files import is_image
from runtime.metrics import IDENTICAL_DB, SSIM_MIN_PX, psnr_db, ssim
from runtime.pipeline import Pipeline
from runtime.sinks import Sink, open_sink
from runtime.sources import SourceInfo, open_source
from runtime.web.settings import Limits
from runtime.web.uploads import check_video, too_long

_SHOWN_QUALITY = 95
"""Of the JPEG that a browser shows; what is downloaded is lossless."""

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Files, which have been looked at by `uploads.suffix_of`; what is made of them appears in `folder`."""

    engine: str
    source: str
    reference: str | None
    """The truth, to compare with."""
    folder: str


class Shots:
    """Follows a pipeline: tells its progress, and keeps the picture before and after for the browser."""

    def __init__(self, job: Job, limits: Limits, tell: Tell) -> None:
        self._folder, self._limits, self._tell = Path(job.folder), limits, tell
        self._is_picture = is_image(Path(job.source))
        self._beside: Sink | None = None

    def __call__(self, pipeline: Pipeline, frame: Frame, restored: Pixels) -> None:
        count = pipeline.frames_written
        if count > self._limits.video_frames:
            raise too_long(self._limits)
        if self._is_picture:
            self._keep_picture(frame.pixels, restored)
        else:
            self._keep_frame(frame, restored, pipeline.source)
        self._tell({"frames": count, "of": max(count, pipeline.source.frame_count or 0), "fps": pipeline.fps})

    def _keep_picture(self, blurred: Pixels, restored: Pixels) -> None:
        pictures = {"before": blurred, "after": restored, "side_by_side": np.hstack((blurred, restored))}
        quality = [cv2.IMWRITE_JPEG_QUALITY, _SHOWN_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
        for name, pixels in pictures.items():
            (self._folder / f"{name}.jpg").write_bytes(cv2.imencode(".jpg", pixels, quality)[1].tobytes())

    def _keep_frame(self, frame: Frame, restored: Pixels, source: SourceInfo) -> None:
        even = slice(restored.shape[0] // 2 * 2 or None)  # browsers show H.264 of even sizes alone
        self._beside = self._beside or open_sink(
            str(self._folder / "side_by_side.mp4"), dataclasses.replace(source, audio=None)
        )
        self._beside.write(frame.with_pixels(np.hstack((frame.pixels[even], restored[even]))))

    def close(self, *, complete: bool) -> None:
        if self._beside:
            self._beside.close(complete=complete)


def done(job: Job, engine: Engine, limits: Limits, tell: Tell) -> dict[str, Any]:
    """Sharpen one upload by the pipeline of `runtime.video`; what there is to say of it. Raises what that raises."""
    picture = is_image(Path(job.source))
    for path in [Path(each) for each in (job.source, job.reference) if each]:
        if is_image(path) != picture:
            raise InputError("a picture is compared with a picture, a video with a video", hint="upload its like")
        if not picture:
            check_video(path, limits)
    source = open_source(job.source)
    result = str(Path(job.folder) / ("restored.png" if picture else "restored.mp4"))
    pipeline = Pipeline(source, engine, open_sink(result, source.info))
    shots = Shots(job, limits, tell)
    pipeline.listeners.append(shots)
    complete = False
    try:
        pipeline.run()
        complete = True
    finally:
        shots.close(complete=complete)
    return {
        "frames": pipeline.frames_written,
        "fps": pipeline.fps,
        "engine_ms": pipeline.latencies["engine"].summary()["p50"],
        "warnings": pipeline.warnings,
        "scores": scores(job.source, result, job.reference) if job.reference else {},
    }


def scores(blurred: str, restored: str, truth: str) -> dict[str, float]:
    """Mean PSNR and SSIM of the frames of two files against a third's; raises InputError where they do not match."""
    rows = []
    for frames in zip_longest(*(open_source(path) for path in (blurred, restored, truth))):
        if None in frames or frames[0].size != frames[2].size:
            raise InputError("the sharp reference has another size or length", hint="upload the one that belongs to it")
        pictures = [frame.pixels for frame in frames]
        row = [min(psnr_db(each, pictures[2]), IDENTICAL_DB) for each in pictures[:2]]
        row += [ssim(each, pictures[2]) for each in pictures[:2]] if min(frames[0].size) >= SSIM_MIN_PX else []
        rows.append(row)
    names = ("blurred_psnr_db", "psnr_db", "blurred_ssim", "ssim")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=False))


def refusal(error: Exception) -> dict[str, str]:
    """What a visitor reads: no path of the server, no traceback."""
    if is_out_of_memory(error):
        return {"refused": "more memory would be needed than there is", "hint": "upload something smaller"}
    if isinstance(error, DeblurError):
        return {"refused": error.what, "hint": error.hint}
    traceback.print_exception(error)
    return {"refused": f"this is a bug ({type(error).__name__})", "hint": "the server's log says more"}


def main(arguments: list[str] | None = None) -> int:
    """Serve jobs until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", action="append", required=True)
    parser.add_argument("--provider", default="auto")
    parser.add_argument("--limits", type=json.loads, default={})
    options = parser.parse_args(arguments)
    limits = Limits(**options.limits)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, with which this ends

    def tell(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        engines = {path: _ready(path, options.provider) for path in options.engine}
    except DeblurError as error:
        tell(refusal(error))
        return error.exit_code
    memory = round(limits.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    tell(
        {
            "engines": {
                path: {"spec": engine.spec.to_dict(), "backend": engine.backend} for path, engine in engines.items()
            }
        }
    )
    for job in _jobs():
        try:
            tell({"done": done(job, engines[job.engine], limits, tell)})
        except Exception as error:  # noqa: BLE001 - the visitor gets a sentence, the next one is served
            tell(refusal(error))
    return 0


def _jobs() -> Iterator[Job]:
    """Jobs as they come. Where standard input ends, the server is gone: the process tidies up and ends at once."""
    arrived: Queue[Job] = Queue()
    latest: list[Job] = []

    def read() -> None:
        for line in sys.stdin:
            arrived.put(Job(**json.loads(line)))
        for job in latest:
            shutil.rmtree(job.folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=read, daemon=True, name="inbox").start()
    while True:
        latest[:] = [arrived.get()]
        yield latest[0]


def _ready(path: str, provider: Any) -> Engine:
    """An engine that has been used once, so that the first visitor does not wait for it."""
    engine = open_engine(path, provider=provider)
    engine.infer(trial_frame(DEFAULT_SIZE))
    return engine


if __name__ == "__main__":
    sys.exit(main())
