"""Check of the outputs and interleaved measurement of file jobs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.metrics import capped_psnr_db
from benchmarks.harness.processes import JobError
from benchmarks.harness.transcode import HEAD_FRAMES, read_x264_settings
from benchmarks.peers.vs_mlrt.jobs import Job
from runtime.cli import say
from runtime.engines.timing import interleave
from runtime.frame import Pixels
from runtime.metrics import IDENTICAL_DB

_CHECKED_EVERY = 10
"""Distance between the frames whose output is compared."""

_MIN_NEARER_DB = 0.5
"""Smallest difference in dB by which an output has to be nearer to that of the first job than the blurred clip is; less
may come from encoding the blurred clip again."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip in three files: all of it, its first HEAD_FRAMES frames, and the ground truth if there is one."""

    blurred: Path
    head: Path
    sharp: Path | None
    frames: int


@dataclass(frozen=True, kw_only=True)
class Check:
    """Output of a job compared with that of the first job of its network, and with the ground truth."""

    agreement_db: float
    """PSNR of its planes against those of the first job."""
    undone_db: float
    """PSNR of the planes of the blurred input against those of the first job."""
    psnr_db: float | None
    """PSNR of its planes against the ground truth."""
    settings: dict[str, str]
    """Settings of x264 in its output."""
    messages: str


@dataclass(kw_only=True)
class Outcome:
    """A job that was timed, or the reason why it was not."""

    job: Job
    check: Check | None = None
    reason: str = ""
    costs: list[tuple[float, float]] = field(default_factory=list)
    """Milliseconds of wall time and of processor time a frame, of each round, without starting and ending."""
    whole_s: list[float] = field(default_factory=list)
    """Seconds of wall time of each round, with starting and ending."""


def check_jobs(jobs: Sequence[Job], clip: Clip, folder: Path) -> list[Outcome]:
    """Run every job of one network once, as a warm-up, and compare the outputs."""
    blurred = _read_planes(clip.blurred)
    sharp = _read_planes(clip.sharp) if clip.sharp else None
    first: list[Pixels] = []
    outcomes = []
    for job in jobs:
        say(f"checking {job.label}")
        try:
            outcome, planes = _check(job, clip, folder, first=first, blurred=blurred, sharp=sharp)
            first = first or planes
        except JobError as error:
            outcome = Outcome(job=job, reason=str(error))
        outcomes.append(outcome)
    return outcomes


def _check(
    job: Job,
    clip: Clip,
    folder: Path,
    *,
    first: Sequence[Pixels],
    blurred: Sequence[Pixels],
    sharp: Sequence[Pixels] | None,
) -> tuple[Outcome, list[Pixels]]:
    out = folder / "out.mp4"
    _, _, messages = job.run(clip.blurred, out)
    planes = _read_planes(out)
    if [frame.shape for frame in planes] != [frame.shape for frame in blurred]:
        raise JobError("its output has other frames than the clip")
    expected = first or planes
    check = Check(
        agreement_db=_mean_psnr_db(planes, expected),
        undone_db=_mean_psnr_db(blurred, expected),
        psnr_db=None if sharp is None else _mean_psnr_db(planes, sharp),
        settings=read_x264_settings(out),
        messages=messages,
    )
    is_idle = check.agreement_db < min(check.undone_db + _MIN_NEARER_DB, IDENTICAL_DB)
    reason = "its output is no nearer to that of the first job than the blurred clip is" if is_idle else ""
    return Outcome(job=job, check=check, reason=reason), planes


def time_jobs(outcomes: Sequence[Outcome], clip: Clip, folder: Path, *, rounds: int) -> None:
    """Time the jobs that passed their check in interleaved rounds, and add the costs to the outcomes."""
    timed = [outcome for outcome in outcomes if not outcome.reason]
    if not timed:
        return

    def time_one(job: Job) -> tuple[float, float, float]:
        say(f"timing {job.label}")
        start_wall_s, start_cpu_s, _ = job.run(clip.head, folder / "out.mp4")
        wall_s, cpu_s, _ = job.run(clip.blurred, folder / "out.mp4")
        frames = clip.frames - HEAD_FRAMES
        return 1e3 * (wall_s - start_wall_s) / frames, 1e3 * (cpu_s - start_cpu_s) / frames, wall_s

    results = interleave(
        [partial(time_one, outcome.job) for outcome in timed],
        has_enough=lambda times: len(times[0]) >= rounds,
        wake=lambda _: None,
    )
    for outcome, times in zip(timed, results, strict=True):
        if min(min(wall_ms, cpu_ms) for wall_ms, cpu_ms, _ in times) <= 0:
            outcome.reason = "the clip is too short: its head took as long"
            continue
        outcome.costs = [(wall_ms, cpu_ms) for wall_ms, cpu_ms, _ in times]
        outcome.whole_s = [whole_s for _, _, whole_s in times]


def costs_ms(outcome: Outcome, kind: int) -> NDArray[np.float64]:
    """Return float64[rounds, 1]: milliseconds a frame of wall time (0) or processor time (1)."""
    return np.array(outcome.costs)[:, kind : kind + 1]


def count_frames(video: Path) -> tuple[int, tuple[int, int]]:
    """Return the number of frames of a file, and their width and height."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        return sum(packet.pts is not None for packet in container.demux(stream)), (stream.width, stream.height)


def _read_planes(video: Path) -> list[Pixels]:
    """Return every _CHECKED_EVERY-th frame as planes of 4:2:0, whatever matrix the file states."""
    with av.open(str(video)) as container:
        frames: Iterable[av.VideoFrame] = container.decode(video=0)
        checked = (frame for index, frame in enumerate(frames) if index % _CHECKED_EVERY == 0)
        return [np.asarray(frame.to_ndarray(format="yuv420p"), np.uint8) for frame in checked]


def _mean_psnr_db(planes: Sequence[Pixels], reference: Sequence[Pixels]) -> float:
    pairs = zip(planes, reference, strict=True)
    return round(float(np.mean([capped_psnr_db(one, other) for one, other in pairs])), 3)
