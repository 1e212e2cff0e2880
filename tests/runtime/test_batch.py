"""Batches: outputs, journal, broken files and killed runs, in one process and on a Ray cluster of two nodes."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime.batch.__main__ import main
from runtime.batch.files import Journal, Task, find_tasks
from runtime.engines import BUNDLED
from runtime.errors import InputError, UsageError
from runtime.files import sha256
from runtime.sources import open_source
from tests.conftest import DEMO_CLIP, make_image
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


def test_no_files_and_equal_outputs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files found"):
        find_tasks([str(tmp_path / "*.mp4")], tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.mp4").write_bytes(b"")
    with pytest.raises(UsageError, match="two sources have the output"):
        find_tasks([str(tmp_path / "a"), str(tmp_path / "b")], tmp_path / "out")


def test_broken_file_is_listed_at_the_end_and_stops_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_archive(tmp_path / "in", 3), tmp_path / "out"
    (source / "day 0" / "broken.mp4").write_bytes(b"not a video")
    assert run("--source", source, "--out", out) == 3
    assert len(list(out.rglob("*.mp4"))) == 3
    assert "broken.mp4" in capsys.readouterr().err.strip().splitlines()[-1]


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
    assert Journal(out, sha256(BUNDLED)).is_finished(task)
    assert not Journal(out, "another").is_finished(task)


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


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_run_continues_inside_the_file(number: signal.Signals, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_clip(source / "a.mp4")
    shutil.copy(DEMO_CLIP, source / "b.mp4")
    arguments = ["--source", source, "--out", tmp_path / "out", "--provider", "cpu"]
    process = Held("runtime.batch", arguments, at=80)
    process.wait_for_frame(50)  # of the second file: the first has fewer
    process.process.send_signal(number)
    assert process.wait_for_end()[0] in {-signal.SIGKILL, 130}
    assert not (tmp_path / "out" / "b.mp4").exists()
    assert run("--source", source, "--out", tmp_path / "out") == 0
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
    original = Journal.add

    def add(self: Journal, task: Task, digest: str) -> None:
        original(self, task, digest)
        seen.append(task.out)
        if len(seen) == 3:
            cluster.remove_node(cluster.nodes[0], allow_graceful=False)

    monkeypatch.setattr(Journal, "add", add)
    assert run_on_ray(cluster, source, tmp_path / "out") == 3
    monkeypatch.undo()
    lines = capsys.readouterr().err.strip().splitlines()
    assert "broken.mp4" in lines[-1]
    assert sum("failed" in line for line in lines) == 1
    run("--source", source, "--out", tmp_path / "alone")
    assert have_equal_frames(tmp_path / "out", tmp_path / "alone")
    entries = [json.loads(line)["out"] for line in (tmp_path / "out" / "batch.jsonl").read_text().splitlines()]
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
