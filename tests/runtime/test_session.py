"""Several sources that share one engine."""

from __future__ import annotations

import json
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.base import SynchronousEngine
from runtime.engines.shared import SharedEngine
from runtime.errors import SourceLostError
from runtime.frame import Pixels
from runtime.pipeline import Pipeline
from runtime.sources import Watch, open_source
from runtime.sources.live import LiveSource
from runtime.spec import EngineSpec
from runtime.video import main
from tests.conftest import write_clip
from tests.runtime.conftest import UNGUARDED
from tests.runtime.test_live import Busy, Steady
from tests.runtime.test_pipeline import Kept, Numbers

OPTIONS = ["--guard", "off", "--provider", "cpu", "--threads", "1"]


class Recorded(SynchronousEngine):
    """An engine that notes whose frames it works on (their first pixel), up to `slots` at once."""

    spec, backend = EngineSpec(name="recorded"), "test"

    def __init__(self, slots: int = 1, fail_on: int = -1) -> None:
        super().__init__()
        self.slots, self.seen, self.most = slots, [], 0
        self._fail_on = fail_on
        self._caller = threading.Lock()

    def infer(self, batch: Pixels) -> Pixels:
        assert self._caller.acquire(blocking=False), "two threads at once"
        time.sleep(0.002)
        self.seen.append(int(batch[0, 0, 0, 0]))
        self.most = max(self.most, len(self._results) + 1)
        assert len(self._results) < self.slots
        self._caller.release()
        if self.seen[-1] == self._fail_on:
            raise ValueError("engine")
        return batch.copy()

    def close(self) -> None: ...


@pytest.mark.parametrize("slots", [1, 3])
def test_each_pipeline_gets_its_own_frames_in_order(slots: int) -> None:
    shared = SharedEngine(Recorded(slots))
    sinks = [Kept() for _ in range(4)]
    pipelines = []
    for sink in sinks:
        client = shared.create_client()
        pipelines.append(Pipeline(Numbers(60), client, sink, UNGUARDED, turn=client.turn))
    threads = [threading.Thread(target=pipeline.run) for pipeline in pipelines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for sink in sinks:
        assert [frame.pixels[0, 0, 0] for frame in sink.frames] == list(range(60))
    assert shared.engine.most <= slots


def test_clients_get_the_engine_alternately() -> None:
    """Two clients that always wait alternate; neither gets the engine many times in a row."""
    engine = Recorded()
    shared = SharedEngine(engine)
    together = threading.Barrier(2)

    def use(value: int) -> None:
        client = shared.create_client()
        together.wait(20)
        for _ in range(100):
            client.infer(np.full((1, 2, 2, 3), value, np.uint8))

    threads = [threading.Thread(target=use, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    seen = engine.seen
    assert len(seen) == 200
    both = seen[max(seen.index(1), seen.index(2)) : 200 - max(seen[::-1].index(1), seen[::-1].index(2))]
    assert len(both) > 100
    assert abs(both.count(1) - both.count(2)) < 0.2 * len(both)


def test_a_failure_ends_only_its_own_pipeline() -> None:
    shared = SharedEngine(Recorded(fail_on=70))
    clients = [shared.create_client(), shared.create_client()]
    good, bad = Kept(), Kept()
    ends = [
        Pipeline(Numbers(50), clients[0], good, UNGUARDED, turn=clients[0].turn),
        Pipeline(Numbers(100), clients[1], bad, UNGUARDED, turn=clients[1].turn),
    ]
    other = threading.Thread(target=ends[0].run)
    other.start()
    with pytest.raises(ValueError, match="engine"):
        ends[1].run()
    other.join(20)
    assert (good.closings, bad.closings) == ([True], [False])
    assert len(good.frames) == 50


def test_live_sources_that_share_a_slow_engine_deliver_new_frames() -> None:
    """A frame is chosen when the engine is free for it, so it does not wait for the frames of other sources."""
    shared = SharedEngine(Busy(0.05))
    pipelines = []
    for _ in range(4):
        source = LiveSource("steady", lambda: Steady(60, 3), Watch(timeout_s=0.5, open_s=1, max_reconnects=0))
        client = shared.create_client()
        pipelines.append(Pipeline(source, client, Kept(), UNGUARDED, turn=client.turn))

    def run(pipeline: Pipeline) -> None:
        with pytest.raises(SourceLostError):
            pipeline.run()

    threads = [threading.Thread(target=run, args=(pipeline,)) for pipeline in pipelines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    written = [pipeline.frames_written for pipeline in pipelines]
    assert min(written) > 0.7 * max(written) > 5
    for pipeline in pipelines:
        # its own 50 ms, a frame time to be captured, and whoever holds the turn when the last frame has left
        assert pipeline.latencies["total"].percentile_ms(50) < 50 + 2 * 1000 / 60 + 50


def test_two_files_at_the_same_time(
    clip: Path, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "b.mp4", size=(32, 24), pts=[512 * index for index in range(30)])
    sources = ["--source", str(clip), "--source", str(tmp_path / "b.mp4")]
    outs = ["--out", str(tmp_path / "a_out.mp4"), "--out", str(tmp_path / "b_out.mp4")]
    stats = tmp_path / "s.json"
    assert main(["--engine", str(invert), *sources, *outs, "--stats", str(stats), *OPTIONS]) == 0
    assert [len(list(open_source(out))) for out in outs[1::2]] == [10, 30]
    values = json.loads(stats.read_text())
    assert [stream["source"] for stream in values["streams"]] == sources[1::2]
    assert [stream["frames"]["written"] for stream in values["streams"]] == [10, 30]
    assert "30 read, 30 written" in capsys.readouterr().err


def test_a_source_that_fails_stops_no_other(
    clip: Path, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "cut.mkv", size=(320, 240), pts=[512 * index for index in range(100)])
    content = (tmp_path / "cut.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(content[: len(content) // 2])
    sources = ["--source", str(tmp_path / "cut.mkv"), "--source", str(clip)]
    outs = ["--out", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "b.mp4")]
    assert main(["--engine", str(invert), *sources, *outs, *OPTIONS]) == 3
    shown = capsys.readouterr().err
    assert shown.count("error: ") == 1
    assert "file is cut off" in shown
    assert len(list(open_source(outs[3]))) == 10
    assert len(list(open_source(outs[1]))) > 20


def test_one_source_into_two_files(clip: Path, invert: Path, tmp_path: Path) -> None:
    outs = ["--out", str(tmp_path / "a.mp4"), "--out", f"{tmp_path}/frames/"]
    assert main(["--engine", str(invert), "--source", str(clip), *outs, *OPTIONS]) == 0
    assert len(list(open_source(str(tmp_path / "a.mp4")))) == len(list((tmp_path / "frames").iterdir())) == 10


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a window shows one source"),
        (["--out", "a.mp4", "--out", "b.mp4", "--show"], "a window shows one source"),
        (["--out", "a.mp4"], "2 sources and 1 outputs"),
        (["--out", "a.mp4", "--out", "a.mp4"], "two outputs are the same"),
        (["--out", "{clip}", "--out", "a.mp4", "-y"], "output is the source"),
    ],
)
def test_sources_and_outputs_that_do_not_fit_are_refused(
    arguments: list[str], words: str, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.format(clip=clip) for argument in arguments]
    assert main(["--source", str(clip), "--source", str(clip), *filled]) == 2
    assert words in capsys.readouterr().err


def test_a_source_that_cannot_be_opened_leaves_nothing_open(
    clip: Path, invert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = ["--out", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "b.mp4")]
    sources = ["--source", str(clip), "--source", str(tmp_path / "none.mp4")]
    assert main(["--engine", str(invert), *sources, *outs, *OPTIONS]) == 3
    assert "no such file" in capsys.readouterr().err
    assert not list(tmp_path.glob("[ab].*"))


def test_frame_rates_of_raw_frames() -> None:
    from runtime.video import parse

    assert parse(["--raw", "64x48@30000/1001"]).raw.fps == Fraction(30000, 1001)
    for text in ("64x48", "64x48@0", "64@30", "64x48@x"):
        with pytest.raises(SystemExit):
            parse(["--raw", text])
