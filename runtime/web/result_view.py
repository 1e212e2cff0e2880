"""The result of a job on the upload page: comparison, downloads, figures and warnings."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Literal, NamedTuple

import streamlit as st

from runtime.web.messages import JobResult
from runtime.web.selection import Upload

_FOLDER = Path(__file__).parent
_DOWNLOADS = {"restored": "Download the result", "side_by_side": "Download before and after"}


class Figure(NamedTuple):
    """A figure of a result as `st.metric` shows it."""

    label: str
    value: str
    change: str | None
    help: str


def show_comparison(upload: Upload, engine: str, result: JobResult) -> None:
    """Show before and after under a divider, with zoom and pan."""
    divider = st.components.v2.component(
        "deblur_divider",
        html=(_FOLDER / "divider.html").read_text(),
        css=(_FOLDER / "divider.css").read_text(),
        js=(_FOLDER / "divider.js").read_text(),
        isolate_styles=False,
    )
    previews = {"before": "before.jpg", "after": "after.jpg"}
    if _is_video(result):
        previews = {"video": "side_by_side.mp4"}
    key = upload.result_key(engine)
    divider(
        data={"key": key} | {role: _data_url(result, name) for role, name in previews.items()}, key=f"divider {key}"
    )


def show_downloads(upload: Upload, result: JobResult) -> None:
    """Show a button for each file to download, with its format."""
    stem = Path(upload.name).stem
    for name, label in _DOWNLOADS.items():
        file = next(file for file in result.files if Path(file).stem == name)
        suffix = Path(file).suffix
        st.download_button(
            f"{label} ({suffix[1:].upper()})",
            result.files[file],
            f"{stem}_{name}{suffix}",
            on_click="ignore",
            key=f"get {name}",
            icon=":material/download:",
            type="primary" if name == "restored" else "secondary",
            width="stretch",
        )


def show_figures(result: JobResult, seconds: float) -> None:
    """Show the warnings, the times, and the quality if there is a reference; `seconds` is the time of the whole job."""
    for warning in result.warnings:
        show_message("warning", warning)
    with st.container(horizontal=True, gap="small", key="figures"):
        for figure in _list_figures(result, seconds):
            st.metric(figure.label, figure.value, figure.change, help=figure.help, width="content")


def _list_figures(result: JobResult, seconds: float) -> list[Figure]:
    network = "Median time of the network for one frame, without reading, writing and transfer."
    figures = [Figure("Network time per frame", f"{result.engine_ms:.1f} ms", None, network)]
    if _is_video(result):
        text = "Frames per second of the whole job, which writes the result and the side-by-side video."
        figures.append(Figure("Speed", f"{result.fps:.1f} fps", None, text))
    else:
        text = "Time from the start of the job to its result on the server, without the upload."
        figures.append(Figure("Total time", f"{1e3 * seconds:.0f} ms", None, text))
    for name, label, digits, unit in (("psnr_db", "PSNR", 2, " dB"), ("ssim", "SSIM", 3, "")):
        if name in result.scores:
            after, before = result.scores[name], result.scores[f"blurred_{name}"]
            change = f"{after - before:+.{digits}f}{unit}"
            text = "Similarity of the result to the sharp reference; with an arrow, the change from the blurred input."
            figures.append(Figure(label, f"{after:.{digits}f}{unit}", change, text))
    return figures


def show_message(kind: Literal["error", "warning"], text: str) -> None:
    """Show a text exactly as it is; names of files and titles in videos are a visitor's.

    `st.error` and `st.warning` read Markdown, and make links and symbols even of text that `plain` has escaped.
    """
    with st.container(key=f"{kind}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:12]}"):
        st.text(text)


def plain(text: str) -> str:
    """Return facts of an engine so that Streamlit, which reads Markdown, shows them as they are."""
    return "".join(f"\\{letter}" if letter in r"\`*_{}[]()<>#+-.!|~:$&" else letter for letter in text)


def _is_video(result: JobResult) -> bool:
    return "restored.mp4" in result.files


def _data_url(result: JobResult, name: str) -> str:
    media_type = "video/mp4" if name.endswith(".mp4") else "image/jpeg"
    return f"data:{media_type};base64,{base64.b64encode(result.files[name]).decode()}"
