"""Channel, latencies, engine spec, errors, frame and interruption."""

from __future__ import annotations

import errno
import json
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.channel import Channel
from runtime.errors import (
    DeblurError,
    EngineError,
    InputError,
    OutOfMemoryError,
    OutputError,
    SourceLostError,
    UsageError,
)
from runtime.files import write_whole
from runtime.frame import Frame
from runtime.interrupt import Interruption
from runtime.spec import EngineSpec
from runtime.timing import Latencies


def test_channel_keeps_order_and_ends() -> None:
    channel: Channel[int] = Channel(3)
    received: list[int] = []

    def receive() -> None:
        while (item := channel.get()) is not None:
            received.append(item)

    receiver = threading.Thread(target=receive)
    receiver.start()
    assert all(channel.put(item) for item in range(100))
    channel.close()
    receiver.join(5)
    assert received == list(range(100))
    assert not channel.put(100)


def test_channel_waits_when_full_until_closed() -> None:
    channel: Channel[int] = Channel(1)
    channel.put(0)
    results: list[bool] = []
    sender = threading.Thread(target=lambda: results.append(channel.put(1)))
    sender.start()
    sender.join(0.1)
    assert sender.is_alive()
    channel.close(discard=True)
    sender.join(5)
    assert results == [False]
    assert channel.get() is None


def test_channel_drops_the_oldest_and_counts() -> None:
    channel: Channel[int] = Channel(2, drop_oldest=True)
    for item in range(5):
        assert channel.put(item)
    assert (channel.get(), channel.get(), channel.dropped) == (3, 4, 3)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=300))
def test_percentiles_are_within_half_a_percent(durations_ms: list[float]) -> None:
    latencies = Latencies()
    for duration in durations_ms:
        latencies.add(duration)
    for percent in (50, 90, 99, 100):
        exact = float(np.percentile(durations_ms, percent, method="inverted_cdf"))
        assert latencies.percentile_ms(percent) == pytest.approx(exact, rel=0.0051)
    assert latencies.max_ms == max(durations_ms)


def test_no_latencies_are_zero() -> None:
    assert Latencies().summary() == {"p50": 0, "p90": 0, "p99": 0, "max": 0}


@given(
    name=st.text(),
    precision=st.sampled_from(["fp32", "fp16", "int8", "unknown"]),
    height=st.tuples(st.integers(1, 100), st.integers(100, 9999)),
    psnr_db=st.none() | st.floats(0, 99),
)
def test_spec_survives_json(name: str, precision: str, height: tuple[int, int], psnr_db: float | None) -> None:
    spec = EngineSpec(name=name, precision=precision, height=height, psnr_db=psnr_db)
    assert EngineSpec.from_json(spec.to_json()) == spec


def test_spec_ignores_fields_of_later_versions() -> None:
    assert EngineSpec.from_json('{"name": "a", "quantum": true}') == EngineSpec(name="a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "a", "precision": "fp4"}',
        '{"name": "a", "height": [0, 4]}',
        '{"name": "a", "width": [5, 4]}',
    ],
)
def test_a_damaged_spec_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        EngineSpec.from_json(text)


def test_spec_accepts_sizes_in_its_range() -> None:
    spec = EngineSpec(name="a", height=(16, 32), width=(8, 64))
    assert spec.accepts(width=8, height=32)
    assert not spec.accepts(width=65, height=32)
    assert not spec.accepts(width=8, height=15)


def test_errors_are_one_line_with_path_and_hint() -> None:
    assert str(InputError("no such file", "a b.mp4", hint="check it")) == "no such file: a b.mp4; check it"
    assert str(UsageError("nonsense", hint="stop")) == "nonsense; stop"
    assert "\n" not in str(InputError("no such file", "a\nb.mp4", hint="check it"))


def test_exit_codes_are_as_documented() -> None:
    kinds = [UsageError, InputError, EngineError, SourceLostError, OutputError, OutOfMemoryError]
    assert [kind.exit_code for kind in kinds] == [2, 3, 4, 5, 6, 7]
    assert all(issubclass(kind, DeblurError) for kind in kinds)


def test_frame_has_a_time_and_a_size() -> None:
    frame = Frame(pixels=np.zeros((2, 4, 3), np.uint8), pts=3, time_base=Fraction(1, 6), captured_at=0.0)
    assert (frame.pts_seconds, frame.size) == (0.5, (4, 2))
    assert frame.with_pixels(np.ones((1, 1, 3), np.uint8)).pts == 3


def test_the_first_signal_calls_on_signal_and_restores_the_default() -> None:
    calls = []
    with Interruption() as interruption:
        interruption.on_signal = lambda: calls.append(1)
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert (calls, interruption.exit_code) == ([1], 143)


def test_a_signal_before_the_run_raises() -> None:
    with Interruption() as interruption, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert interruption.exit_code == 130


def test_spec_is_plain_json() -> None:
    assert json.loads(EngineSpec(name="a").to_json())["name"] == "a"


def test_write_whole_replaces_the_old_content_by_empty_content(tmp_path: Path) -> None:
    write_whole(tmp_path / "log.jsonl", b"old")
    write_whole(tmp_path / "log.jsonl", b"")
    assert (tmp_path / "log.jsonl").read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_write_whole_keeps_the_old_content_if_the_new_one_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    write_whole(tmp_path / "state.pt", b"old")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OutputError, match="Input/output error"):
        write_whole(tmp_path / "state.pt", b"new")
    assert (tmp_path / "state.pt").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
