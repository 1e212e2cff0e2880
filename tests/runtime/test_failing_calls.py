"""Every call to the disk fails once, as SQLite tests it: one line, 6, and nothing that looks whole and is not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import pytest
from av.error import FFmpegError

from tests.conftest import ROOT, Survived, picture, write_clip
from tests.rig.failing import Ending, Job, library, run_all

FRAMES = 60
PICTURES = 4


@dataclass(frozen=True)
class Output:
    """An output of the command line, and which of its files are whole."""

    name: str
    options: tuple[str, ...] = ()
    files: str = ""
    """The pattern of what it makes, if that is not its name."""
    whole_frames: tuple[int, ...] = (FRAMES,)
    before: bool = True
    """Whether something is there that -y replaces."""
    source: str = "in.mp4"


OUTPUTS = [
    Output("a.mp4"),
    Output("a.mkv"),
    Output("a.mp4", ("--segment-s", "0.5"), "a_*.mp4", (13, 8), before=False),
    Output("frames", files="frames/*.png", whole_frames=(1,), before=False, source="in"),
    Output("stats.json"),
]


def frames_in(path: Path) -> int:
    """How many frames play, pictures and videos alike; -1 where nothing can be opened."""
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
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip, and with a folder of pictures."""
    folder = tmp_path_factory.mktemp("source")
    write_clip(folder / "in.mp4", size=(160, 120), pts=[512 * index for index in range(FRAMES)], audio="aac")
    (folder / "in").mkdir()
    for index in range(PICTURES):
        cv2.imwrite(str(folder / "in" / f"{index}.png"), picture(40, 30, seed=index))
    return folder


def job(output: Output, folder: Path, source: Path, engine: Path, *, number: int, full_disk: bool) -> Job:
    folder.mkdir()
    if output.before:
        (folder / output.name).write_bytes(b"precious")
    where = ["--out", "null", "--stats"] if output.name == "stats.json" else ["--out"]
    common = ["--engine", str(engine), "--guard", "off", "--provider", "cpu", "--threads", "1", "-y"]
    arguments = ["--source", str(source / output.source), *where, str(folder / output.name), *output.options, *common]
    return Job(arguments=arguments, folder=str(folder), number=number, full_disk=full_disk)


def check(output: Output, folder: Path, ending: Ending) -> None:
    """What is under a final name is whole, or what was there before; whatever is beside it plays."""
    errors = [line for line in ending.said.splitlines() if line.startswith("error: ")]
    assert ending.code in {0, 6}, ending
    assert len(errors) == (ending.code == 6), ending
    assert "Traceback" not in ending.said
    finals = set(folder.glob(output.files or output.name))
    partials = set(folder.rglob("*.partial.*"))
    rest = {path for path in folder.rglob("*") if path.is_file()} - finals - partials
    assert not rest, rest
    finals -= partials
    for path in finals:
        if not (output.before and path.read_bytes() == b"precious"):
            assert frames_in(path) in output.whole_frames, (path, ending)
    for path in partials:
        assert frames_in(path) > 0, (path, path.stat().st_size, ending)
    if ending.code == 0:
        assert finals
        assert not partials


@pytest.mark.parametrize("full_disk", [False, True], ids=["once", "full"])
@pytest.mark.parametrize("output", OUTPUTS, ids=["mp4", "mkv", "segments", "pictures", "stats"])
@pytest.mark.fault(
    "Files", "the disk fails", done="each open, write, fsync, close, rename and unlink of the output, in turn"
)
def test_any_call_may_fail(
    output: Output, full_disk: bool, made: Path, source: Path, invert: Path, tmp_path: Path, survived: Survived
) -> None:
    def jobs(numbers: range) -> list[Job]:
        return [job(output, tmp_path / str(n), source, invert, number=n, full_disk=full_disk) for n in numbers]

    (undisturbed,) = run_all(made, jobs(range(1)), root=ROOT)
    assert undisturbed.code == 0
    check(output, tmp_path / "0", undisturbed)
    last = undisturbed.calls
    endings = run_all(made, jobs(range(1, last + 2)), root=ROOT)
    for number, ending in enumerate(endings, 1):
        check(output, tmp_path / str(number), ending)
    assert endings[-1].code == 0
    failed = sum(ending.code == 6 for ending in endings)
    assert failed >= last // 2
    way = "full from the nth on" if full_disk else "once"
    name = " ".join((output.name, *output.options))
    survived(f"{name}, {way}: {failed} of {last} calls ended the run, each with one line", code=6, lost=0)
