"""One job of the worker process: restore an upload, record previews for the browser, measure the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from runtime.engines import Engine
from runtime.errors import InputError
from runtime.frame import Frame, Image, Pixels, as_bgr
from runtime.image_files import is_image
from runtime.metrics import IDENTICAL_DB, SSIM_MIN_PX, psnr_db, ssim
from runtime.pipeline import Pipeline
from runtime.sinks import Sink, open_sink
from runtime.sources import Source, SourceInfo, open_source
from runtime.web.messages import Job, JobProgress, Message
from runtime.web.settings import Limits
from runtime.web.uploads import check_video, too_long_error

_JPEG_MAX_PX = 65_500
"""Largest width and height of a JPEG that OpenCV writes."""
_PREVIEW_QUALITY = 95
"""JPEG quality of the previews in the browser; the file to download has the format of the upload."""
_WORDS = {"after": "the comparison", "side_by_side": "the side-by-side image"}

SendMessage = Callable[[Message], None]


class PreviewRecorder:
    """A listener of a pipeline that reports progress and writes the previews that the browser shows.

    An image gets `before.jpg`, `after.jpg` and `side_by_side.jpg`; a video gets `side_by_side.mp4`.
    """

    def __init__(self, job: Job, limits: Limits, send: SendMessage) -> None:
        self._folder, self._limits, self._send = Path(job.folder), limits, send
        self._is_image = is_image(Path(job.source))
        self._video: Sink | None = None
        self.warnings: list[str] = []
        """Sentences about previews that are smaller than the result."""

    def __call__(self, pipeline: Pipeline, frame: Frame, result: Image) -> None:
        """Record a written frame; raises InputError if there are more frames than the limit allows."""
        frames, restored = pipeline.frames_written, as_bgr(result)
        if frames > self._limits.video_frames:
            raise too_long_error(self._limits)
        if self._is_image:
            self._write_images(frame.bgr, restored)
        else:
            self._write_video_frame(frame, restored, pipeline.source)
        frame_count = max(frames, pipeline.source.frame_count or 0)
        self._send(dataclasses.asdict(JobProgress(frames=frames, frame_count=frame_count, fps=pipeline.fps)))

    def _write_images(self, blurred: Pixels, restored: Pixels) -> None:
        images = {"before": blurred, "after": restored, "side_by_side": np.hstack((blurred, restored))}
        for name, pixels in images.items():
            shown = _fit_into_jpeg(pixels)
            (self._folder / f"{name}.jpg").write_bytes(_encode_preview(shown))
            if shown is not pixels and name != "before":
                sizes = [f"{image.shape[1]}x{image.shape[0]}" for image in (pixels, shown)]
                self.warnings.append(
                    f"{_WORDS[name]} is scaled from {sizes[0]} to {sizes[1]}, as JPEG has no larger size"
                )

    def _write_video_frame(self, frame: Frame, restored: Pixels, source: SourceInfo) -> None:
        rows = slice(restored.shape[0] // 2 * 2 or None)  # browsers only play H.264 of an even height
        if self._video is None:
            self._video = open_sink(str(self._folder / "side_by_side.mp4"), dataclasses.replace(source, audio=None))
        self._video.write(frame.with_pixels(np.hstack((frame.bgr[rows], restored[rows]))))

    def close(self, *, complete: bool) -> None:
        """Close the video, if there is one."""
        if self._video:
            self._video.close(complete=complete)


def _fit_into_jpeg(pixels: Pixels) -> Pixels:
    """Return an image scaled down to the largest size of a JPEG; the image itself if it is not larger."""
    height, width = pixels.shape[:2]
    scale = _JPEG_MAX_PX / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, int(scale * width)), max(1, int(scale * height))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _encode_preview(pixels: Pixels) -> bytes:
    # 4:4:4: the preview shows edges with their full colour resolution.
    options = [cv2.IMWRITE_JPEG_QUALITY, _PREVIEW_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    is_encoded, content = cv2.imencode(".jpg", pixels, options)
    if not is_encoded:
        raise MemoryError("no memory for the preview")
    return content.tobytes()


def restore_upload(job: Job, engine: Engine, limits: Limits, send: SendMessage) -> dict[str, Any]:
    """Restore an upload with the pipeline of `runtime.video`; return the fields of `JobResult` without the files.

    Raises InputError for a file above the limits or a reference that does not fit, and the errors of a pipeline.
    """
    source_is_image = is_image(Path(job.source))
    for path in [Path(name) for name in (job.source, job.reference) if name]:
        if is_image(path) != source_is_image:
            raise InputError(
                "upload and reference are not both images or both videos", hint="upload a reference of the same kind"
            )
        if not source_is_image:
            check_video(path, limits)
    source = open_source(job.source)
    result = str(Path(job.folder) / f"restored{Path(job.source).suffix if source_is_image else '.mp4'}")
    pipeline = Pipeline(source, engine, open_sink(result, source.info))
    previews = PreviewRecorder(job, limits, send)
    pipeline.listeners.append(previews)
    try:
        damage = _run(pipeline, source)
    except BaseException:
        previews.close(complete=False)
        raise
    previews.close(complete=True)
    return {
        "frames": pipeline.frames_written,
        "fps": pipeline.fps,
        "engine_ms": pipeline.latencies["engine"].summary()["p50"],
        "warnings": damage + pipeline.warnings + previews.warnings,
        "scores": measure_scores(job.source, result, job.reference) if job.reference else {},
    }


def _run(pipeline: Pipeline, source: Source) -> list[str]:
    """Run a pipeline; return what is wrong with a video of which only a part was restored."""
    try:
        pipeline.run()
    except InputError as error:
        if pipeline.kept is None or error is not source.damage:
            raise
        return [error.what]
    return []


def measure_scores(blurred: str, restored: str, reference: str) -> dict[str, float]:
    """Return the mean PSNR (dB) and SSIM of two files against a reference, over all frames.

    The keys are `blurred_psnr_db`, `psnr_db`, `blurred_ssim` and `ssim`; frames that are too small for SSIM have none.
    Raises InputError if the reference has another size or number of frames.
    """
    with ExitStack() as opened:
        sources = [opened.enter_context(closing(open_source(path))) for path in (blurred, restored, reference)]
        rows = [_score(frames) for frames in zip_longest(*sources)]
    names = ("blurred_psnr_db", "psnr_db", "blurred_ssim", "ssim")
    return dict(zip(names, np.mean(rows, axis=0).tolist(), strict=False))


def _score(frames: tuple[Frame | None, ...]) -> list[float]:
    """Return the scores of a blurred and a restored frame against their reference: first PSNR, then SSIM."""
    blurred, restored, reference = frames
    if not (blurred and restored and reference) or blurred.size != reference.size:
        raise InputError("the sharp reference has another size or length", hint="upload the matching reference")
    results, sharp = (blurred.bgr, restored.bgr), reference.bgr
    scores = [min(psnr_db(pixels, sharp), IDENTICAL_DB) for pixels in results]
    return scores + ([ssim(pixels, sharp) for pixels in results] if min(blurred.size) >= SSIM_MIN_PX else [])
