"""Mutated checkpoints: loaded for an export, or refused in one line."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import cv2

from tests.conftest import make_image
from tests.export.test_fuse import REDUCED
from tests.fuzz.mutation import mutate_bytes, mutate_json
from tests.fuzz.rig import Case, Worker, run_cases
from train.checkpoint import publish
from train.config import apply_overrides
from train.models import create_generator
from train.recipes import RECIPES
from train.weights import CONFIG, WEIGHTS

WORDS = {4: "checkpoint is loaded|weights do not load|weights are not finite numbers|no usable config.json"}


def write_pairs(folder: Path) -> Path:
    for kind in ("blur", "sharp"):
        (folder / kind).mkdir(parents=True)
        cv2.imwrite(str(folder / kind / "0.png"), make_image(48, 32))
    return folder


def write_run(folder: Path, name: str) -> Path:
    folder.mkdir()
    config = apply_overrides(RECIPES["edge-s"], [f"generator={name}", f"options={REDUCED[name]}"])
    publish(create_generator(name, **REDUCED[name]), config.to_json(), folder)
    return folder


def test_mutated_checkpoints(worker: Worker, seeds: range, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs")
    runs = [write_run(tmp_path / name, name) for name in ("edge", "two_stage_cnn", "resnet_unet")]

    def make_case(rng: random.Random, place: Path) -> Case:
        whole = rng.choice(runs)
        run = place / "run"
        shutil.copytree(whole, run)
        if rng.random() < 0.6:
            (run / CONFIG).write_bytes(mutate_json(json.loads((whole / CONFIG).read_text()), rng))
        else:
            (run / WEIGHTS).write_bytes(mutate_bytes((whole / WEIGHTS).read_bytes(), rng))
        return Case("export", [str(run), "--out", str(place / "out"), "--pairs", str(pairs), "--precision", "fp32"])

    run_cases(worker, "checkpoint", make_case, WORDS, seeds=seeds, folder=tmp_path)
