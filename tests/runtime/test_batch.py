"""Batches: outputs, journal, broken files and killed runs, in one process and on a Ray cluster of two nodes."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from runtime.batch import work
from runtime.batch.__main__ import main
from runtime.batch.engines import BatchEngines
from runtime.batch.files import Task, find_tasks
from runtime.batch.journal import JOURNAL, Journal, SourceVersion
from runtime.engines import BUNDLED
from runtime.errors import EngineError, InputError, UsageError
from runtime.files import sha256
from runtime.options import RunOptions
from runtime.pipeline import Pipeline
from runtime.resume import EngineFile
from runtime.sources import open_source
from runtime.spec import EngineSpec
from tests.conftest import make_image
from tests.conftest import write_clip as write_media
from tests.rig import wait_until
from tests.rig.held import Held
from tests.runtime.test_web_queue import encode, write_clip


def write_archive(folder: Path, count: int, *, frames: int = 5) -> Path:
    for index in range(count):
        path = folder / f"day {index % 2}" / f"cam{index}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, frames=frames + index % 3)
    return folder


def run(*arguments: str | Path) -> int:
    return main([*map(str, arguments), "--provider", "cpu"])


def read_frames(path: Path) -> list[np.ndarray]:
    return [frame.pixels for frame in open_source(str(path))]


def have_equal_frames(folder: Path, other: Path) -> bool:
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.mp4"))
    assert names == sorted(path.relative_to(other) for path in other.rglob("*.mp4"))
    return all(
        all(np.array_equal(*pair) for pair in zip(read_frames(folder / name), read_frames(other / name), strict=True))
        for name in names
    )


def test_outputs_copy_the_folder_structure_of_their_sources(tmp_path: Path) -> None:
    source = write_archive(tmp_path / "in", 3)
    (source / "old.avi").write_bytes(b"")
    (source / "still.png").write_bytes(encode(make_image(32, 32)))
    tasks = find_tasks([str(source / "**" / "*.mp4")], tmp_path / "out")
    assert [Path(task.out).relative_to(tmp_path / "out").as_posix() for task in tasks] == [
        "day 0/cam0.mp4",
        "day 0/cam2.mp4",
        "day 1/cam1.mp4",
    ]
    every = {
        Path(task.out).relative_to(tmp_path / "out").as_posix() for task in find_tasks([str(source)], tmp_path / "out")
    }
    assert {"old.avi.mp4", "still.png"} < every
    assert find_tasks([str(source / "old.avi")], tmp_path)[0].out == str(tmp_path / "old.avi.mp4")
    (source / "out").mkdir()
    (source / "out" / "made.mp4").write_bytes(b"")
    assert len(find_tasks([str(source)], source / "out")) == 5


def test_of_a_folder_only_videos_and_images_are_taken(tmp_path: Path) -> None:
    source = tmp_path / "in"
    taken = ["A.MP4", "b.avi", "clip.ts", "i.png", "sub/c.webm"]
    hidden = [".DS_Store", "._A.MP4", ".thumbs/t.png", "sub/.d.mp4"]
    for name in [*taken, *hidden, "notes.txt", "a.srt", "sub/other.srt", "README", "p.heic"]:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    said: list[str] = []
    tasks = find_tasks([str(source)], tmp_path / "out", say=said.append)
    assert sorted(Path(task.source).relative_to(source).as_posix() for task in tasks) == taken
    assert len(said) == 1
    assert said[0].startswith(f"skipped 5 files of {source} that are no videos or images: 2 .srt, ")
    assert len(find_tasks([str(source / "*.srt"), str(source / "notes.txt")], tmp_path / "out")) == 2


def test_no_files_and_equal_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no videos or images found"):
        find_tasks([str(tmp_path / "*.mp4")], tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match="two sources have the output"):
        find_tasks([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out")


@pytest.mark.parametrize("name", ["a.partial.mp4", "a.partial.before.mp4"])
def test_a_clip_with_the_partial_name_of_another_is_refused(tmp_path: Path, name: str) -> None:
    for clip in ("a.mp4", name):
        (tmp_path / clip).touch()
    with pytest.raises(UsageError, match=r"output has the name of a\.mp4 while that is unfinished"):
        find_tasks([str(tmp_path)], tmp_path / "out")


def test_output_that_is_a_source_is_refused(tmp_path: Path) -> None:
    source = write_archive(tmp_path / "in", 1)
    (tmp_path / "link").symlink_to(source)
    for out in (source, tmp_path / "link"):
        with pytest.raises(UsageError, match="output is a source"):
            find_tasks([str(source)], out)
        assert main(["--source", str(source), "--out", str(out), "-y"]) == 2
    assert [path.name for path in source.rglob("*") if path.is_file()] == ["cam0.mp4"]


def test_broken_file_is_listed_at_the_end_and_stops_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_archive(tmp_path / "in", 3), tmp_path / "out"
    (source / "day 0" / "broken.mp4").write_bytes(b"not a video")
    assert run("--source", source, "--out", out) == 3
    assert len(list(out.rglob("*.mp4"))) == 3
    assert "broken.mp4" in capsys.readouterr().err.strip().splitlines()[-1]


def test_the_warnings_of_each_file_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_media(tmp_path / "in" / "a.avi", pts=list(range(10)), time_base=Fraction(1, 25), audio="adpcm_ms")
    assert run("--source", tmp_path / "in", "--out", tmp_path / "out") == 0
    (out,) = (tmp_path / "out").glob("a*.m*")
    assert f"warning: {out}: sound left out" in capsys.readouterr().err


def test_finished_files_are_recognized_by_their_content(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_archive(tmp_path / "in", 3), tmp_path / "out"
    assert run("--source", source, "--out", out) == 0
    modified = {path: path.stat().st_mtime_ns for path in out.rglob("*.mp4")}
    os.utime(source / "day 0" / "cam0.mp4", (1, 1))  # as in a copy of the archive
    write_clip(source / "day 1" / "cam1.mp4", frames=9)
    capsys.readouterr()
    assert run("--source", source, "--out", out) == 0
    assert "files   3, of which 2 are already finished" in capsys.readouterr().err
    again = [path.name for path, before in modified.items() if path.stat().st_mtime_ns != before]
    assert again == ["cam1.mp4"]
    assert len(read_frames(out / "day 1" / "cam1.mp4")) == 9
    (out / "day 0" / "cam0.mp4").write_bytes(b"cut off")
    with (out / "batch.jsonl").open("a") as file:
        file.write('{"source": "cut')
    assert run("--source", source, "--out", out) == 0
    assert len(read_frames(out / "day 0" / "cam0.mp4")) == 5


def test_another_engine_restores_everything_again(tmp_path: Path) -> None:
    source, out = write_archive(tmp_path / "in", 1), tmp_path / "out"
    task = find_tasks([str(source)], out)[0]
    assert run("--source", source, "--out", out) == 0
    assert Journal(out, sha256(BUNDLED)).find_finished(task)
    assert not Journal(out, "another").find_finished(task)


def test_files_that_no_run_made_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_archive(tmp_path / "in", 2), tmp_path / "out"
    (out / "day 0").mkdir(parents=True)
    (out / "day 0" / "cam0.mp4").write_bytes(b"precious")
    assert run("--source", source, "--out", out) == 2
    assert "output exists" in capsys.readouterr().err
    assert (out / "day 0" / "cam0.mp4").read_bytes() == b"precious"
    assert (out / "day 1" / "cam1.mp4").exists()
    assert run("--source", source, "--out", out, "-y") == 0
    assert len(read_frames(out / "day 0" / "cam0.mp4")) == 5


def test_whatever_a_file_raises_is_its_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_archive(tmp_path / "in", 4), tmp_path / "out"
    errors = iter([ValueError("odd\nvalue"), MemoryError(), RecursionError("deep")])

    def open_source_or_fail(name: str, **options: str) -> object:
        if error := next(errors, None):
            raise error
        return open_source(name, **options)

    monkeypatch.setattr(work, "open_source", open_source_or_fail)
    assert run("--source", source, "--out", out) == 1
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed")]
    assert [line.partition(": ")[2].partition(";")[0] for line in failed] == [
        "this is a bug (ValueError: odd value)",
        "not enough memory",
        "this is a bug (RecursionError: deep)",
    ]
    assert len(list(out.rglob("*.mp4"))) == 1
    assert run("--source", source, "--out", out) == 0
    assert len(list(out.rglob("*.mp4"))) == 4


def test_source_that_is_removed_meanwhile_is_its_own_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_archive(tmp_path / "in", 3), tmp_path / "out"
    tasks = find_tasks([str(source)], out)

    def open_and_remove_next(name: str, **options: str) -> object:
        Path(tasks[1].source).unlink(missing_ok=True)
        return open_source(name, **options)

    monkeypatch.setattr(work, "open_source", open_and_remove_next)
    assert run("--source", source, "--out", out) == 3
    assert f"failed  {tasks[1].source}: cannot read source" in capsys.readouterr().err
    assert [Path(task.out).exists() for task in tasks] == [True, False, True]


def test_a_failed_file_leaves_no_frames_in_the_engine_for_the_next(tmp_path: Path) -> None:
    source = write_archive(tmp_path / "in", 2, frames=6)
    tasks = find_tasks([str(source)], tmp_path / "out")
    engine = FailingEngine(fail_at=1)
    engines = BatchEngines(EngineFile("copy", ""), lambda _: engine)
    options = RunOptions(guard=False)

    def on_start(pipeline: Pipeline) -> None:
        engine.wait = lambda: wait_until(lambda: pipeline.frames_read >= 4)

    assert "engine failed" in work.restore_file(tasks[0], engines, options, on_start=on_start).error
    assert engine.submitted == 4
    assert work.restore_file(tasks[1], engines, options).error == ""
    restored, blurred = read_frames(Path(tasks[1].out)), read_frames(Path(tasks[1].source))
    assert all(np.abs(a.astype(int) - b).mean() < 10 for a, b in zip(restored, blurred, strict=True))


class FailingEngine:
    """An engine of three slots that returns its input, and fails once in `collect`."""

    spec, backend, provider, slots = EngineSpec(name="copy"), "test", "cpu", 3

    def __init__(self, fail_at: int) -> None:
        self._frames: deque[tuple[int, np.ndarray]] = deque()
        self.submitted, self._fail_at = 0, fail_at
        self.wait: Callable[[], object] = lambda: None
        """Waits before the first frame is taken, until the source is ahead."""

    def submit(self, batch: np.ndarray) -> None:
        if self.submitted == 0:
            self.wait()
        self._frames.append((self.submitted, batch.copy()))
        self.submitted += 1

    def collect(self) -> np.ndarray:
        index, batch = self._frames.popleft()
        if index == self._fail_at:
            raise EngineError("engine failed", hint="")
        return batch

    def close(self) -> None:
        pass


def test_link_in_the_output_folder_is_followed(tmp_path: Path) -> None:
    source, out = write_archive(tmp_path / "in", 2), tmp_path / "out"
    out.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (out / "day 0").symlink_to(tmp_path / "elsewhere")
    assert run("--source", source, "--out", out) == 0
    assert (tmp_path / "elsewhere" / "cam0.mp4").exists()


def test_source_that_is_cut_off_is_restored_once_and_reported_each_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    write_clip(source / "a.mkv", frames=50)
    whole = (source / "a.mkv").read_bytes()
    (source / "a.mkv").write_bytes(whole[: len(whole) * 2 // 3])
    for _ in range(2):
        assert run("--source", source, "--out", out) == 3
        assert "file is cut off" in capsys.readouterr().err.strip().splitlines()[-1]
    assert "1 of 1" in capsys.readouterr().err or not list(out.glob("*.partial.*"))
    (source / "a.mkv").write_bytes(whole)
    assert run("--source", source, "--out", out) == 0
    assert len(read_frames(out / "a.mkv")) == 50


# The journal ----------------------------------------------------------------------------------------------------------


def write_journal(out: Path) -> tuple[list[Task], SourceVersion]:
    """Write the journal of two finished files and return their tasks."""
    tasks = [Task(f"in/{name}", str(out / name)) for name in ("a.mp4", "b \u00e9.mp4")]
    version = SourceVersion(size=1, mtime_ns=2, sha256="3")
    journal = Journal(out, "engine")
    for task in tasks:
        journal.start(task)
        Path(task.out).write_bytes(b"video")
        journal.finish(task, version)
    return tasks, version


def test_journal_that_is_cut_off_at_any_byte_knows_the_outputs_of_its_run(tmp_path: Path) -> None:
    tasks, version = write_journal(tmp_path)
    path = tmp_path / JOURNAL
    content = path.read_bytes()
    starts = [content.index(line) + len(line) for line in content.splitlines() if b"started" in line]
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        journal = Journal(tmp_path, "engine")
        for task, start in zip(tasks, starts, strict=True):  # the output can only appear after its first line is whole
            assert journal.may_write(task) == (length >= start)
        for task in tasks:
            journal.finish(task, version)
        again = Journal(tmp_path, "engine")
        assert all(again.may_write(task) for task in tasks)
        assert path.read_bytes().startswith(content[:length])
        assert len(again._finished) == len(tasks)


@pytest.mark.parametrize(
    "noise", [b"\xff\xfe\n", b"[" * 200_000 + b"\n", b"null\n[]\n{}\n", b'{"out": []}\n', b"\0" * 99]
)
def test_lines_that_cannot_be_read_are_ignored(noise: bytes, tmp_path: Path) -> None:
    tasks, version = write_journal(tmp_path)
    path = tmp_path / JOURNAL
    first, second = path.read_bytes().splitlines(keepends=True)[1::2]
    path.write_bytes(first + noise)
    journal = Journal(tmp_path, "engine")
    assert [journal.may_write(task) for task in tasks] == [True, False]
    journal.finish(tasks[1], version)
    assert path.read_bytes().endswith(b"\n" + second)
    assert all(Journal(tmp_path, "engine").may_write(task) for task in tasks)


def test_power_failure_before_the_journal_is_written_means_no_existing_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_archive(tmp_path / "in", 2), tmp_path / "out"
    assert run("--source", source, "--out", out) == 0
    content = (out / JOURNAL).read_bytes()
    (out / JOURNAL).write_bytes(content[:-30])
    assert run("--source", source, "--out", out) == 0
    assert run("--source", source, "--out", out) == 0
    assert "files   2, of which 2 are already finished" in capsys.readouterr().err


def test_output_that_a_user_made_after_a_failure_is_not_replaced(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "a.mp4").write_bytes(b"not a video")
    assert run("--source", source, "--out", out) == 3
    (out / "a.mp4").write_bytes(b"precious")
    write_clip(source / "a.mp4")
    assert run("--source", source, "--out", out) == 2
    assert (out / "a.mp4").read_bytes() == b"precious"


# Runs that are stopped ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_run_continues_inside_the_file(
    number: signal.Signals, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_clip(source / "a.mp4")
    write_clip(source / "b.mp4", size=(320, 192), frames=110, fps=5)  # chunks of 25 frames
    arguments = ["--source", source, "--out", tmp_path / "out", "--provider", "cpu"]
    process = Held("runtime.batch", arguments, at=75)
    process.wait_for_frame(70)  # of the second file: the first has fewer
    process.process.send_signal(number)
    code, shown = process.wait_for_end()
    assert code in {-signal.SIGKILL, 130}
    assert ("b.mp4: stopped, the same command continues it" in shown) == (code == 130)
    assert not (tmp_path / "out" / "b.mp4").exists()
    assert run("--source", source, "--out", tmp_path / "out") == 0
    restored = int(re.search(r"b\.mp4: (\d+) frames", capsys.readouterr().err)[1])
    assert restored < 110, "the whole file was restored again"
    assert (110 - restored) % 25 == 0
    assert run("--source", source, "--out", tmp_path / "whole") == 0
    assert have_equal_frames(tmp_path / "out", tmp_path / "whole")


# On Ray ---------------------------------------------------------------------------------------------------------------

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")
"""Ray closes its sockets and processes only at the end of the program."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """A Ray cluster with a head without CPUs and two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def run_on_ray(cluster: object, source: Path, out: Path) -> int:
    return run("--source", source, "--out", out, "--ray", cluster.address, "--cpus-per-worker", "1")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [6, pytest.param(24, marks=pytest.mark.slow)])
def test_file_of_a_dead_node_is_restored_by_the_other_node(
    count: int, cluster: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_archive(tmp_path / "in", count, frames=40)
    (source / "broken.mp4").write_bytes(b"not a video")
    seen: list[str] = []
    original = Journal.finish

    def finish(self: Journal, task: Task, source: SourceVersion, **more: str) -> None:
        original(self, task, source, **more)
        seen.append(task.out)
        if len(seen) == 3:
            cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    monkeypatch.setattr(Journal, "finish", finish)
    assert run_on_ray(cluster, source, tmp_path / "out") == 3
    monkeypatch.undo()
    lines = capsys.readouterr().err.strip().splitlines()
    assert "broken.mp4" in lines[-1]
    assert sum("failed" in line for line in lines) == 1
    run("--source", source, "--out", tmp_path / "alone")
    assert have_equal_frames(tmp_path / "out", tmp_path / "alone")
    lines = [json.loads(line) for line in (tmp_path / "out" / "batch.jsonl").read_text().splitlines()]
    entries = [line["out"] for line in lines if "started" not in line]
    assert len(set(entries)) == len(entries) == len(list((tmp_path / "out").rglob("*.mp4")))
    assert run_on_ray(cluster, source, tmp_path / "out") == 3  # only the broken file is tried again


@pytest.mark.timeout(300)
def test_engine_that_no_worker_can_load_ends_the_run(
    cluster: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not an engine")
    source = write_archive(tmp_path / "in", 1)
    engine = ("--engine", tmp_path / "broken.onnx")
    arguments = ("--source", source, "--out", tmp_path / "out", "--ray", cluster.address, "--cpus-per-worker", "1")
    assert run(*engine, *arguments) == 4
    assert "could not load broken.onnx" in capsys.readouterr().err
    ray.shutdown()
    assert run("--source", source, "--out", tmp_path / "out", "--ray", cluster.address, "--cpus-per-worker", "9") == 2
    assert "no node has 9 CPUs" in capsys.readouterr().err


def test_unreachable_cluster_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_archive(tmp_path / "in", 1)
    assert run("--source", source, "--out", tmp_path / "out", "--ray", "127.0.0.1:1") == 2
    assert "no Ray cluster" in capsys.readouterr().err
