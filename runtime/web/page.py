"""The page itself, which Streamlit runs anew for each visitor and whenever one of them touches something."""

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
from runtime.web.desk import Answer, Desk, Standing
from runtime.web.settings import Settings
from runtime.web.uploads import UPLOADS

HERE = Path(__file__).parent
BENCHMARKS = HERE.parents[1] / "benchmarks"
CLIP, SHARP_CLIP = BENCHMARKS / "clips/demo_blurred.mp4", BENCHMARKS / "clips/demo_sharp.mp4"
SAMPLE_FRAMES = {"Sample picture 1": 18, "Sample picture 2": 61}
SAMPLE_CLIP = "Sample clip"

divider = st.components.v2.component(
    "deblur_divider",
    html=(HERE / "divider.html").read_text(),
    css=(HERE / "divider.css").read_text(),
    js=(HERE / "divider.js").read_text(),
    isolate_styles=False,
)


@dataclass(frozen=True)
class Blurred:
    """What is to be sharpened, and the truth if that is known."""

    name: str
    content: bytes
    reference: bytes | None = None

    def key(self, engine: str) -> str:
        digest = hashlib.sha256(self.content)
        digest.update(self.reference or b"")
        return digest.hexdigest()[:16] + engine


@st.cache_resource(show_spinner="Loading engines")
def desk(settings: str) -> Desk:
    """One for all visitors."""
    found = Settings.from_json(settings)
    return Desk([Path(path) for path in found.engines], provider=found.provider, limits=found.limits)


@st.cache_resource(show_spinner=False)
def sample(name: str) -> Blurred | None:
    """The demo clip or frames of it, which have a truth; None where the clips are not there."""
    if not CLIP.exists():
        return None
    if name == SAMPLE_CLIP:
        return Blurred(CLIP.name, CLIP.read_bytes(), SHARP_CLIP.read_bytes())
    return Blurred(f"{name}.png", *(_frame(clip, SAMPLE_FRAMES[name]) for clip in (CLIP, SHARP_CLIP)))


def _frame(clip: Path, wanted: int) -> bytes:
    source = VideoSource(clip)
    try:
        frame = next(frame for index, frame in enumerate(source) if index == wanted)
    finally:
        source.close()
    return bytes(cv2.imencode(".png", frame.pixels)[1])


def main() -> None:
    st.set_page_config(page_title="Deblur", page_icon=str(HERE / "icon.svg"), layout="wide")
    st.html(f"<style>{(HERE / 'page.css').read_text()}</style>")
    st.subheader("Deblur", anchor=False)
    try:
        front = desk(sys.argv[1])
    except DeblurError as error:
        st.error(str(error))
        return
    picture, benchmarks = st.tabs(["Sharpen", "Benchmarks"])
    with picture:
        sharpen(front)
    with benchmarks:
        reports()


def sharpen(front: Desk) -> None:
    """Ask for a picture or clip, and show it before and after."""
    limits = front.limits
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.file_uploader(
        f"A blurred picture, or a video of up to {limits.video_s:g} seconds",
        type=UPLOADS,
        key="upload",
        on_change=partial(st.session_state.pop, "sample", None),
        help=f"Up to {limits.picture_px / 1e6:.0f} million pixels; videos up to {limits.video_px / 1e6:.1f} million.",
    )
    with right.container(horizontal=True):
        for name in (*SAMPLE_FRAMES, SAMPLE_CLIP):
            if sample(name):
                st.button(name, on_click=partial(st.session_state.__setitem__, "sample", name))
    result = st.container()
    with st.expander("Engine, and a sharp reference"):
        engine = st.selectbox("Engine", front.engines, format_func=partial(_title, front))
        specification(front, engine)
        st.file_uploader(
            "The same picture or clip, sharp, if you have it: PSNR and SSIM are measured against it",
            type=UPLOADS,
            key="reference",
        )
    with result:
        blurred = _blurred()
        answer = _answer(front, blurred, engine) if blurred else None
        if blurred and answer:
            show(blurred, engine, *answer)


def _blurred() -> Blurred | None:
    """What the visitor chose last."""
    if name := st.session_state.get("sample"):
        return sample(name)
    upload, reference = st.session_state.get("upload"), st.session_state.get("reference")
    return Blurred(upload.name, upload.getvalue(), reference and reference.getvalue()) if upload else None


def _answer(front: Desk, blurred: Blurred, engine: str) -> tuple[Answer, float] | None:
    """The result and the seconds it took, kept until another is asked for; None where it is refused, which is shown."""
    key = blurred.key(engine)
    if st.session_state.get("answered") == key:
        kept: tuple[Answer, float] = st.session_state["answer"]
        return kept
    st.session_state.pop("answer", None)
    bar = st.progress(0.0, text="Looking at it")
    began = perf_counter()

    def on_standing(standing: Standing) -> None:
        text = "Sharpening"
        if standing.ahead:
            text = f"{standing.ahead} before you"
        elif standing.of > 1:
            text = f"Frame {standing.frames} of {standing.of}, {standing.fps:.0f} a second"
        # Where the visitor has left, this raises, and the job is given up.
        bar.progress(standing.frames / max(1, standing.of), text=text)

    try:
        answer = front.sharpen(blurred.content, engine=engine, reference=blurred.reference, on_standing=on_standing)
    except DeblurError as error:
        bar.empty()
        st.error(f"{blurred.name}: {error.what}; {error.hint}.", icon=":material/block:")
        return None
    bar.empty()
    result = answer, perf_counter() - began
    st.session_state["answered"], st.session_state["answer"] = key, result
    return result


def show(blurred: Blurred, engine: str, answer: Answer, seconds: float) -> None:
    """Before and after under the divider, what it took, what it gained, and the files."""
    video = "restored.mp4" in answer.files
    names = {"video": "side_by_side.mp4"} if video else {"before": "before.jpg", "after": "after.jpg"}
    key = blurred.key(engine)
    divider(data={"key": key} | {role: _url(answer, name) for role, name in names.items()}, key=f"divider {key}")
    facts: dict[str, tuple[str, str | None]] = {"Engine, a frame": (f"{answer.engine_ms:.1f} ms", None)}
    if video:
        facts["Frames a second, both videos made"] = (f"{answer.fps:.1f}", None)
    else:
        facts["Upload to result"] = (f"{1e3 * seconds:.0f} ms", None)
    for name, label, digits, unit in (("psnr_db", "PSNR", 2, " dB"), ("ssim", "SSIM", 3, "")):
        if name in answer.scores:
            after, before = answer.scores[name], answer.scores[f"blurred_{name}"]
            facts[label] = (f"{after:.{digits}f}{unit}", f"{after - before:+.{digits}f}{unit}")
    with st.container(horizontal=True, gap="small"):
        for label, (value, change) in facts.items():
            st.metric(label, value, change, width="content")
    for warning in answer.warnings:
        st.warning(warning)
    stem = Path(blurred.name).stem
    with st.container(horizontal=True):
        for label, name in (("Download", "restored"), ("Side by side", "side_by_side")):
            file = next(file for file in answer.files if Path(file).stem == name)
            st.download_button(
                label, answer.files[file], f"{stem}_{name}{Path(file).suffix}", on_click="ignore", key=f"get {name}"
            )


def specification(front: Desk, engine: str) -> None:
    facts = front.engines[engine]
    spec = facts["spec"]
    lines = [f"{spec['generator']}, {spec['precision']}", f"runs on {facts['backend']}"]
    if spec["psnr_db"] is not None:
        gain_db = spec["psnr_db"] - spec["blurred_psnr_db"]
        lines.append(
            f"{spec['psnr_db']:.2f} dB, {gain_db:+.2f} dB against the blurred frames, on {spec['measured_on']}"
        )
    st.caption("  \n".join(lines))


def reports() -> None:
    """The published pages of results, one for each device."""
    found = sorted((BENCHMARKS / "results").glob("*/report.html"))
    if not found:
        st.info("No results are installed here; make bench measures this machine.")
        return
    report = st.selectbox("Measured on", found, format_func=lambda path: path.parent.name)
    st.iframe(report or found[0], height=900)


def _title(front: Desk, path: str) -> str:
    return str(front.engines[path]["spec"]["name"])


def _url(answer: Answer, name: str) -> str:
    kind = "video/mp4" if name.endswith(".mp4") else "image/jpeg"
    return f"data:{kind};base64,{base64.b64encode(answer.files[name]).decode()}"


main()
