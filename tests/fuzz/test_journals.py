"""Mutated journals of batches: what they still say is used, and the rest is restored again or refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import cv2
import pytest

from runtime.batch.__main__ import main as run_batch
from runtime.batch.journal import JOURNAL
from tests.conftest import make_image, write_engine
from tests.fuzz.mutation import mutate_bytes, mutate_json
from tests.fuzz.rig import Case, Worker, run_cases

WORDS = {0: "", 2: "^failed  .*: output exists: .*; add -y to replace it$", 3: "^failed  "}
"""Code 3 and its text are those of a line about a damaged source."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A batch of three images that is finished."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "in").mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / "in" / f"{index}.png"), make_image(32, 24, seed=index))
    write_engine(folder / "invert.onnx")
    assert run_batch(arguments(folder)) == 0
    return folder


def arguments(folder: Path) -> list[str]:
    engine = ["--provider", "cpu", "--engine", str(folder / "invert.onnx")]
    return ["--source", str(folder / "in"), "--out", str(folder / "out"), *engine]


def test_mutated_journals(worker: Worker, finished: Path, seeds: range, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (finished / "out" / JOURNAL).read_text().splitlines()]
    damaged = {**lines[-1], "damage": "source is cut off: in/0.png; the frames up to there are kept"}

    def make_case(rng: random.Random, place: Path) -> Case:
        batch = place / "batch"
        shutil.copytree(finished, batch)
        content = [mutate_json(rng.choice([*lines, damaged]), rng) for _ in range(rng.randint(1, 4))]
        content += [json.dumps(line).encode() for line in rng.sample(lines, rng.randint(0, len(lines)))]
        rng.shuffle(content)
        text = b"\n".join(content)
        (batch / "out" / JOURNAL).write_bytes(mutate_bytes(text, rng) if rng.random() < 0.3 else text)
        return Case("runtime.batch", arguments(batch), [batch / "out"])

    run_cases(worker, "journal", make_case, WORDS, seeds=seeds, folder=tmp_path)
