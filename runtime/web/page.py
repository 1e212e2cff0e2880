"""The upload page; Streamlit runs this file again for each visitor, and after each of their actions."""

from __future__ import annotations

import base64
import hashlib
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import cv2
import streamlit as st

from runtime.errors import DeblurError
from runtime.sources.video import VideoSource
from runtime.web.job_queue import JobQueue
from runtime.web.messages import JobProgress, JobResult
from runtime.web.settings import Settings
from runtime.web.uploads import OFFERED_SUFFIXES

FOLDER = Path(__file__).parent
# Index of the frame of the sample clip that each sample image shows. A comment, because Streamlit writes a string that
# stands alone in this file on the page.
SAMPLE_FRAMES = {"Sample image 1": 18, "Sample image 2": 61}
SAMPLE_CLIP = "Sample clip"

divider = st.components.v2.component(
    "deblur_divider",
    html=(FOLDER / "divider.html").read_text(),
    css=(FOLDER / "divider.css").read_text(),
    js=(FOLDER / "divider.js").read_text(),
    isolate_styles=False,
)


@dataclass(frozen=True)
class Upload:
    """An image or video to restore, and its sharp reference if there is one."""

    name: str
    content: bytes
    reference: bytes | None = None

    def result_key(self, engine: str) -> str:
        """Return a key that is the same for the same content, reference and engine."""
        digest = hashlib.sha256(self.content)
        digest.update(self.reference or b"")
        return digest.hexdigest()[:16] + engine


@st.cache_resource(show_spinner="Loading engines")
def open_job_queue(settings_json: str) -> JobQueue:
    """Return the job queue that all visitors share."""
    settings = Settings.from_json(settings_json)
    return JobQueue([Path(path) for path in settings.engines], provider=settings.provider, limits=settings.limits)


@st.cache_resource(show_spinner=False)
def load_sample(name: str, blurred_clip: str, sharp_clip: str) -> Upload:
    """Return the sample clip or a frame of it, with its reference."""
    clips = Path(blurred_clip), Path(sharp_clip)
    if name == SAMPLE_CLIP:
        return Upload(clips[0].name, *(clip.read_bytes() for clip in clips))
    return Upload(f"{name}.png", *(_read_frame(clip, SAMPLE_FRAMES[name]) for clip in clips))


def _read_frame(clip: Path, index: int) -> bytes:
    """Return a frame of a clip as PNG."""
    source = VideoSource(clip)
    try:
        frame = next(frame for position, frame in enumerate(source) if position == index)
    finally:
        source.close()
    return bytes(cv2.imencode(".png", frame.pixels)[1])


def main() -> None:
    st.set_page_config(page_title="Deblur", page_icon=str(FOLDER / "icon.svg"), layout="wide")
    st.html(f"<style>{(FOLDER / 'page.css').read_text()}</style>")
    st.subheader("Deblur", anchor=False)
    settings = Settings.from_json(sys.argv[1])
    try:
        queue = open_job_queue(sys.argv[1])
    except DeblurError as error:
        st.error(str(error))
        return
    if settings.reports is None:
        show_restore_tab(queue, settings)
        return
    restore_tab, reports_tab = st.tabs(["Restore", "Benchmarks"])
    with restore_tab:
        show_restore_tab(queue, settings)
    with reports_tab:
        show_reports(Path(settings.reports))


def show_restore_tab(queue: JobQueue, settings: Settings) -> None:
    """Show the upload field, the samples, the choice of an engine, and the result."""
    limits = queue.limits
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.file_uploader(
        f"Blurred image, or video of up to {limits.video_s:g} seconds",
        type=OFFERED_SUFFIXES,
        key="upload",
        on_change=partial(st.session_state.pop, "sample", None),
        help=f"Images up to {limits.image_px / 1e6:.0f} million pixels, "
        f"videos up to {limits.video_px / 1e6:.1f} million pixels a frame.",
    )
    if settings.sample_blurred is not None:
        with right.container(horizontal=True):
            for name in (*SAMPLE_FRAMES, SAMPLE_CLIP):
                st.button(name, on_click=partial(st.session_state.__setitem__, "sample", name))
    result_area = st.container()
    with st.expander("Engine and sharp reference"):
        engine = st.selectbox("Engine", queue.engines, format_func=partial(_engine_name, queue))
        show_engine(queue, engine)
        st.file_uploader(
            "Sharp reference of the same image or video, to measure PSNR and SSIM (optional)",
            type=OFFERED_SUFFIXES,
            key="reference",
        )
    with result_area:
        upload = _selected_upload(settings)
        result = _restore(queue, upload, engine) if upload else None
        if upload and result:
            show_result(upload, engine, *result)


def _selected_upload(settings: Settings) -> Upload | None:
    """Return the sample or upload that the visitor selected last."""
    if (name := st.session_state.get("sample")) and settings.sample_blurred and settings.sample_sharp:
        return load_sample(name, settings.sample_blurred, settings.sample_sharp)
    upload, reference = st.session_state.get("upload"), st.session_state.get("reference")
    return Upload(upload.name, upload.getvalue(), reference and reference.getvalue()) if upload else None


def _restore(queue: JobQueue, upload: Upload, engine: str) -> tuple[JobResult, float] | None:
    """Return the result and the seconds it took, or show why the upload is refused and return None.

    The result is kept until the visitor selects another upload or engine.
    """
    key = upload.result_key(engine)
    if st.session_state.get("result_key") == key:
        cached: tuple[JobResult, float] = st.session_state["result"]
        return cached
    st.session_state.pop("result", None)
    st.session_state.pop("result_key", None)
    bar = st.progress(0.0, text="Checking the file")
    start = perf_counter()

    def on_progress(progress: JobProgress) -> None:
        text = "Restoring"
        if progress.jobs_ahead:
            text = f"{progress.jobs_ahead} uploads ahead of yours"
        elif progress.frame_count > 1:
            text = f"Frame {progress.frames} of {progress.frame_count}, {progress.fps:.0f} fps"
        # If the visitor has closed the page, this call raises, which ends the job.
        bar.progress(progress.frames / max(1, progress.frame_count), text=text)

    try:
        answer = queue.restore(upload.content, engine=engine, reference=upload.reference, on_progress=on_progress)
    except DeblurError as error:
        bar.empty()
        st.error(f"{upload.name}: {error.what}; {error.hint}.", icon=":material/block:")
        return None
    bar.empty()
    result = answer, perf_counter() - start
    st.session_state["result_key"], st.session_state["result"] = key, result
    return result


def show_result(upload: Upload, engine: str, result: JobResult, seconds: float) -> None:
    """Show before and after under the divider, the figures, the warnings, and the download buttons."""
    is_video = "restored.mp4" in result.files
    previews = {"video": "side_by_side.mp4"} if is_video else {"before": "before.jpg", "after": "after.jpg"}
    key = upload.result_key(engine)
    divider(
        data={"key": key} | {role: _data_url(result, name) for role, name in previews.items()}, key=f"divider {key}"
    )
    with st.container(horizontal=True, gap="small"):
        for label, (value, change) in _figures(result, seconds, is_video=is_video).items():
            st.metric(label, value, change, width="content")
    for warning in result.warnings:
        st.warning(warning)
    stem = Path(upload.name).stem
    with st.container(horizontal=True):
        for label, name in (("Download", "restored"), ("Side by side", "side_by_side")):
            file = next(file for file in result.files if Path(file).stem == name)
            st.download_button(
                label, result.files[file], f"{stem}_{name}{Path(file).suffix}", on_click="ignore", key=f"get {name}"
            )


def _figures(result: JobResult, seconds: float, *, is_video: bool) -> dict[str, tuple[str, str | None]]:
    """Return value and change of each figure by its label."""
    figures: dict[str, tuple[str, str | None]] = {"Engine time per frame": (f"{result.engine_ms:.1f} ms", None)}
    if is_video:
        figures["Frames per second, both videos written"] = (f"{result.fps:.1f}", None)
    else:
        figures["Upload to result"] = (f"{1e3 * seconds:.0f} ms", None)
    for name, label, digits, unit in (("psnr_db", "PSNR", 2, " dB"), ("ssim", "SSIM", 3, "")):
        if name in result.scores:
            after, before = result.scores[name], result.scores[f"blurred_{name}"]
            figures[label] = (f"{after:.{digits}f}{unit}", f"{after - before:+.{digits}f}{unit}")
    return figures


def show_engine(queue: JobQueue, engine: str) -> None:
    """Show network, precision, backend and measured quality of an engine."""
    facts = queue.engines[engine]
    spec = facts["spec"]
    lines = [f"{spec['generator']}, {spec['precision']}", f"runs on {facts['backend']}"]
    if spec["psnr_db"] is not None:
        gain_db = spec["psnr_db"] - spec["blurred_psnr_db"]
        lines.append(f"{spec['psnr_db']:.2f} dB, {gain_db:+.2f} dB over the blurred frames, on {spec['measured_on']}")
    st.caption("  \n".join(lines))


def show_reports(folder: Path) -> None:
    """Show a published benchmark report, and a choice between them: there is one for each device."""
    reports = sorted(folder.glob("*/report.html"))
    if not reports:
        st.info("There are no benchmark reports here; make bench measures this machine.")
        return
    report = st.selectbox("Measured on", reports, format_func=lambda path: path.parent.name)
    st.iframe(report or reports[0], height=900)


def _engine_name(queue: JobQueue, path: str) -> str:
    return str(queue.engines[path]["spec"]["name"])


def _data_url(result: JobResult, name: str) -> str:
    media_type = "video/mp4" if name.endswith(".mp4") else "image/jpeg"
    return f"data:{media_type};base64,{base64.b64encode(result.files[name]).decode()}"


main()
