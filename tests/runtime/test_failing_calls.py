"""Each call to the disk fails once, as in the tests of SQLite: one line, code 6, no incomplete file published."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import pytest
from av.error import FFmpegError

from runtime.files import partial_name
from runtime.sinks.unfinished import job_file
from tests.conftest import ROOT, Survived, make_image, write_clip
from tests.rig.failing import Job, Outcome, build_library, run_all

FRAMES = 60
IMAGES = 4


EARLIER = b'{"schema": 2, "engine": {}, "backend": "of an earlier run"}'
"""What an output replaces; `--stats` replaces nothing but statistics."""


@dataclass(frozen=True)
class Output:
    """An output of the command line and the frame counts of its complete files."""

    name: str
    options: tuple[str, ...] = ()
    files: str = ""
    """Pattern of the files that it writes; empty if that is its name."""
    whole_frames: tuple[int, ...] = (FRAMES,)
    """Possible frame counts of a complete file."""
    has_earlier: bool = True
    """Whether an earlier file exists, which -y replaces."""
    source: str = "in.mp4"


OUTPUTS = [
    Output("a.mp4"),
    Output("a.mkv"),
    Output("a.mp4", ("--segment-s", "0.5"), "a_*.mp4", (13, 8), has_earlier=False),
    Output("frames", files="frames/*.png", whole_frames=(1,), has_earlier=False, source="in"),
    Output("stats.json"),
]


def frames_in(path: Path) -> int:
    """Return the number of frames that play, of an image or a video; -1 if the file cannot be opened."""
    if path.suffix == ".png":
        return 1 if cv2.imread(str(path)) is not None else -1
    if path.suffix == ".json":
        return int(json.loads(path.read_text())["frames"]["written"])
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except (FFmpegError, IndexError):
        return count or -1
    return count


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip and a folder of images."""
    folder = tmp_path_factory.mktemp("source")
    write_clip(folder / "in.mp4", size=(160, 120), pts=[512 * index for index in range(FRAMES)], audio="aac")
    (folder / "in").mkdir()
    for index in range(IMAGES):
        cv2.imwrite(str(folder / "in" / f"{index}.png"), make_image(40, 30, seed=index))
    return folder


def job(output: Output, folder: Path, source: Path, engine: Path, *, number: int, full_disk: bool) -> Job:
    folder.mkdir()
    if output.has_earlier:
        (folder / output.name).write_bytes(EARLIER)
    where = ["--out", "null", "--stats"] if output.name == "stats.json" else ["--out"]
    common = ["--engine", str(engine), "--guard", "off", "--provider", "cpu", "--threads", "1", "-y"]
    arguments = ["--source", str(source / output.source), *where, str(folder / output.name), *output.options, *common]
    return Job(arguments=arguments, folder=str(folder), number=number, full_disk=full_disk)


def check(output: Output, folder: Path, outcome: Outcome) -> None:
    """Check that a final name holds a complete file or the earlier one, and that unfinished files play."""
    errors = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert outcome.code in {0, 6}, outcome
    assert len(errors) == (outcome.code == 6), outcome
    assert "Traceback" not in outcome.stderr
    finals = set(folder.glob(output.files or output.name))
    partials = set(folder.rglob("*.partial.*"))
    others = {path for path in folder.rglob("*") if path.is_file()} - finals - partials
    assert not others, others
    finals -= partials
    partials.discard(job_file(partial_name(folder / output.name)))
    for path in finals:
        if not (output.has_earlier and path.read_bytes() == EARLIER):
            assert frames_in(path) in output.whole_frames, (path, outcome)
    for path in partials:
        assert frames_in(path) > 0, (path, path.stat().st_size, outcome)
    if outcome.code == 0:
        assert finals
        assert not partials


@pytest.mark.parametrize("full_disk", [False, True], ids=["once", "full"])
@pytest.mark.parametrize("output", OUTPUTS, ids=["mp4", "mkv", "segments", "images", "stats"])
@pytest.mark.fault(
    "Files", "the disk fails", done="each open, write, fsync, close, rename and unlink of the output, one at a time"
)
def test_any_call_may_fail(
    output: Output, full_disk: bool, library: Path, source: Path, invert: Path, tmp_path: Path, survived: Survived
) -> None:
    def jobs(numbers: range) -> list[Job]:
        return [job(output, tmp_path / str(n), source, invert, number=n, full_disk=full_disk) for n in numbers]

    (undisturbed,) = run_all(library, jobs(range(1)), root=ROOT)
    assert undisturbed.code == 0
    check(output, tmp_path / "0", undisturbed)
    calls = undisturbed.calls
    outcomes = run_all(library, jobs(range(1, calls + 2)), root=ROOT)
    for number, outcome in enumerate(outcomes, 1):
        check(output, tmp_path / str(number), outcome)
    assert outcomes[-1].code == 0
    failed = sum(outcome.code == 6 for outcome in outcomes)
    assert failed >= calls // 2
    mode = "full from the nth call on" if full_disk else "once"
    name = " ".join((output.name, *output.options))
    survived(f"{name}, {mode}: {failed} of {calls} calls ended the run, each with one line", code=6, lost=0)
