"""Mutated videos and images: restored as far as they can be decoded, or refused in one line."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from onnx import helper

from tests.conftest import write_engine
from tests.fuzz.corpus import write_media
from tests.fuzz.mutation import mutate_bytes
from tests.fuzz.rig import Case, Worker, run_cases

WORDS = {
    0: "",
    3: r"^error: (not an image that can be decoded|image is cut off|image of \d+x\d+|file is empty|"
    r"no video in the file \(|"
    r"the codec of the video is not known|file is cut off after |not a video that can be decoded \("
    r"(Invalid data found when processing input|no frame in it|Input/output error|End of file|"
    r"Invalid argument|Not yet .*|a table in its header does not fit into memory)\))",
}
"""Possible messages about a damaged file, by exit code. None of them is about memory, space or permission."""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_media(tmp_path_factory.mktemp("media"))


def test_mutated_media(worker: Worker, media: list[Path], seeds: range, tmp_path: Path) -> None:
    same = [helper.make_node("Identity", ["x0"], ["y"])]
    engine = write_engine(tmp_path / "same.onnx", nodes=same)  # the guard accepts all of its frames

    def make_case(rng: random.Random, place: Path) -> Case:
        whole = rng.choice(media)
        source = place / whole.name
        source.write_bytes(mutate_bytes(whole.read_bytes(), rng))
        is_video = whole.suffix in {".mp4", ".mov", ".mkv", ".ts", ".avi", ".webm"}
        out = place / f"out{rng.choice(('.mp4', '.mkv', '.mov')) if is_video else rng.choice(('.png', '.jpg'))}"
        options = [["--side-by-side"], ["--segment-s", "0.2"], ["--deinterlace", "off"], ["--skip-sharp", "auto"]]
        extra = rng.choice(options[: 4 if is_video else 1]) if rng.random() < 0.2 else []
        common = ["-y", "--provider", "cpu", "--threads", "1", "--engine", str(engine)]
        return Case("runtime.video", [*common, "--source", str(source), "--out", str(out), *extra], [out])

    run_cases(worker, "media", make_case, WORDS, seeds=seeds, folder=tmp_path)
