"""The file that the visitor selected: an upload, or a sample that is chosen by its thumbnail."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from runtime.frame import Pixels
from runtime.sources.video import VideoSource
from runtime.web.settings import Settings
from runtime.web.storage import STORAGE

SAMPLE_VIDEO = "Video"
SAMPLE_FRAMES = {"Image 1": 18, "Image 2": 61, SAMPLE_VIDEO: 90}
"""Index of the frame of the sample clip that is each sample image, and of the thumbnail of the sample video."""
_THUMBNAIL_WIDTH_PX = 480


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


def find_selection(settings: Settings) -> Upload | None:
    """Return the sample or upload that the visitor selected last."""
    if (name := st.session_state.get("sample")) and settings.sample_blurred and settings.sample_sharp:
        return load_sample(name, settings.sample_blurred, settings.sample_sharp)
    upload, reference = (st.session_state.get(name) for name in ("upload", "reference"))
    if not isinstance(upload, UploadedFile):  # None, or a note of Streamlit that the file is not stored
        return None
    sharp = reference.getvalue() if isinstance(reference, UploadedFile) else None
    return Upload(upload.name, upload.getvalue(), sharp)


def find_refusal() -> str:
    """Return why the visitor's last upload was not stored; an empty string if it was."""
    context = get_script_run_ctx()
    return STORAGE.refusal(context.session_id) if context else ""


@st.cache_resource(show_spinner=False)
def load_sample(name: str, blurred_clip: str, sharp_clip: str) -> Upload:
    """Return the sample clip or a frame of it, with its reference."""
    clips = Path(blurred_clip), Path(sharp_clip)
    if name == SAMPLE_VIDEO:
        return Upload("sample.mp4", *(clip.read_bytes() for clip in clips))
    frames = (_read_frame(clip, SAMPLE_FRAMES[name]) for clip in clips)
    return Upload(f"sample {name}.png".lower(), *(bytes(cv2.imencode(".png", frame)[1]) for frame in frames))


def show_samples(settings: Settings, *, key: str) -> None:
    """Show a thumbnail of each sample, which selects it; the key names the size that `page.css` gives them."""
    if settings.sample_blurred is None:
        return
    with st.container(key=key):
        st.html(f"<style>{_thumbnail_rules(settings.sample_blurred)}</style>")
        st.markdown("Or try a sample:")
        with st.container(horizontal=True, gap="small", wrap=False):
            for index, name in enumerate(SAMPLE_FRAMES):
                st.button(
                    name,
                    key=f"sample-{index}",
                    on_click=partial(st.session_state.__setitem__, "sample", name),
                    width="stretch",
                )


@st.cache_resource(show_spinner=False)
def _thumbnail_rules(blurred_clip: str) -> str:
    """Return the CSS rules that put a frame behind the label of each sample: a button of Streamlit has no image."""
    rules = []
    for index, frame_index in enumerate(SAMPLE_FRAMES.values()):
        frame = _read_frame(Path(blurred_clip), frame_index)
        height_px = round(_THUMBNAIL_WIDTH_PX * frame.shape[0] / frame.shape[1])
        small = cv2.resize(frame, (_THUMBNAIL_WIDTH_PX, height_px), interpolation=cv2.INTER_AREA)
        jpeg = base64.b64encode(cv2.imencode(".jpg", small)[1].tobytes()).decode()
        rules.append(f'.st-key-sample-{index} button {{ background-image: url("data:image/jpeg;base64,{jpeg}"); }}')
    return "\n".join(rules)


def _read_frame(clip: Path, index: int) -> Pixels:
    source = VideoSource(clip)
    try:
        return next(frame for position, frame in enumerate(source) if position == index).bgr
    finally:
        source.close()
