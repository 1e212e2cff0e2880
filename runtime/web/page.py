"""The upload page; Streamlit runs this file again for each visitor, and after each of their actions."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from time import perf_counter

import streamlit as st

from runtime.errors import DeblurError, printable
from runtime.web.job_queue import JobQueue
from runtime.web.messages import JobProgress, JobResult
from runtime.web.reports import show_reports
from runtime.web.result_view import plain, show_comparison, show_downloads, show_figures, show_message
from runtime.web.selection import Upload, find_refusal, find_selection, show_samples
from runtime.web.settings import Limits, Settings
from runtime.web.storage import STORAGE
from runtime.web.uploads import OFFERED_SUFFIXES

FOLDER = Path(__file__).parent


@st.cache_resource(show_spinner="Loading networks")
def open_job_queue(settings_json: str) -> JobQueue:
    """Return the job queue that all visitors share."""
    settings = Settings.from_json(settings_json)
    return JobQueue([Path(path) for path in settings.engines], provider=settings.provider, limits=settings.limits)


def main() -> None:
    st.set_page_config(page_title="Deblur", page_icon=str(FOLDER / "icon.svg"), layout="wide")
    st.html(f"<style>{(FOLDER / 'page.css').read_text()}</style>")
    st.subheader("Deblur", anchor=False)
    settings = Settings.from_json(sys.argv[1])
    try:
        queue = open_job_queue(sys.argv[1])
    except DeblurError as error:
        show_message("error", str(error))
        return
    restore_tab, reports_tab = st.tabs(["Restore", "Benchmarks"])
    with restore_tab:
        show_restore_tab(queue, settings)
    with reports_tab:
        show_reports(settings)


def show_restore_tab(queue: JobQueue, settings: Settings) -> None:
    """Show the upload field and the choice of a network; below them the samples, or the result of the selected file."""
    upload = find_selection(settings)
    introduction = st.empty()
    if upload is None:
        introduction.markdown(describe_page(queue.limits))
    upload_column, network_column = st.columns([3, 1])
    upload_column.file_uploader(
        "Blurred image or video",
        type=OFFERED_SUFFIXES,
        key="upload",
        on_change=partial(st.session_state.pop, "sample", None),
    )
    with network_column:
        engine = st.selectbox(
            "Network",
            queue.engines,
            format_func=partial(_engine_name, queue),
            help="The network that restores the upload. Of the bundled ones, edge-s is the fastest, edge-l the nearest "
            "to the true image, and edge-l-gan the most natural to look at; it may invent detail.",
        )
    main_column, side_column = st.columns([3, 1])
    with main_column:
        if refusal := find_refusal():
            show_message("error", f"The upload is not stored: {refusal}.")
        result = _restore(queue, upload, engine) if upload else None
        if upload is None:
            show_samples(settings, key="samples")
        elif result:
            show_comparison(upload, engine, result[0])
    with side_column:
        if upload and result:
            show_downloads(upload, result[0])
            show_figures(*result)
        show_options(queue, engine)
        if upload:
            show_samples(settings, key="small-samples")


def describe_page(limits: Limits) -> str:
    """Return two sentences: what the page does, and what it takes and does with files."""
    return (
        "This page removes motion blur from an image or a short video with a neural network and compares the result "
        "with the original.  \n"
        f"It takes files of up to {limits.upload_mb} MB: images (JPEG, PNG, WebP, BMP, TIFF) of up to "
        f"{limits.image_px / 1e6:.0f} million pixels, and videos (MP4, MOV, MKV, WebM) of up to {limits.video_s:g} "
        f"seconds and {limits.video_px / 1e6:.1f} million pixels a frame; your files go only to the machine that "
        "serves this page, which deletes them after you close it."
    )


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
        STORAGE.require_room(queue.limits)
        answer = queue.restore(upload.content, engine=engine, reference=upload.reference, on_progress=on_progress)
    except DeblurError as error:
        bar.empty()
        show_message("error", f"{printable(upload.name)}: {error.what}; {error.hint}.")
        return None
    bar.empty()
    STORAGE.add_result(answer)
    result = answer, perf_counter() - start
    st.session_state["result_key"], st.session_state["result"] = key, result
    return result


def show_options(queue: JobQueue, engine: str) -> None:
    """Show the field of the sharp reference, and the details of a network."""
    with st.expander("Measure the quality"):
        st.file_uploader(
            "Sharp reference: the same image or video without blur, for PSNR and SSIM",
            type=OFFERED_SUFFIXES,
            key="reference",
        )
    with st.expander("Network details"):
        facts = queue.engines[engine]
        spec = facts["spec"]
        lines = [f"{spec['name']}: {spec['generator']}, {spec['precision']}", f"Runs on {facts['backend']}"]
        if spec["psnr_db"] is not None:
            gain_db = spec["psnr_db"] - spec["blurred_psnr_db"]
            lines.append(
                f"PSNR {spec['psnr_db']:.2f} dB on the data set {spec['measured_on']}: {gain_db:+.2f} dB by restoring"
            )
        st.caption("  \n".join(map(plain, lines)))


def _engine_name(queue: JobQueue, path: str) -> str:
    return str(queue.engines[path]["spec"]["name"])


main()
