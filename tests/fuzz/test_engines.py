"""Mutated engine files, specs and sidecars: run, or refused in one line."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path

import cv2
import onnx
import pytest

from runtime.engines import BUNDLED
from runtime.engines.onnx import inspect
from runtime.sidecar import sidecar_path
from runtime.spec import METADATA_KEY, EngineSpec
from tests.conftest import make_image, write_engine
from tests.fuzz.corpus import write_network
from tests.fuzz.mutation import mutate_bytes, mutate_fields, mutate_json
from tests.fuzz.rig import Case, Worker, run_cases
from tests.standin import write_plan

_ONNX = (
    r"not an engine that (ONNX Runtime|OpenVINO) can load \(|expected one input and one output of uint8|"
    r"engine is empty|"
    r"names or metadata of the file are not UTF-8|engine failed on a frame|engine returned uint8\[|"
    r"frame of 64x48 is outside the engine's range"
)
_SPEC = f"metadata deblur_spec is damaged \\(|{_ONNX}"
ENGINE_WORDS = {0: "", 4: f"^error: ({_SPEC})"}
SPEC_WORDS = {0: "", 4: rf"^error: ({_SPEC}|no engine that can be used \(engine.onnx: )"}
SIDECAR_WORDS = {
    0: "",
    4: r"^error: (sidecar cannot be read \(|plan is not the one that its sidecar describes|plan was built by|"
    r"plan is for compute capability|plan has the metadata of another tool|engine is empty|frame of 64x48 is outside)",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "a.png"
    cv2.imwrite(str(path), make_image(64, 48))
    return path


def restore(image: Path, engine: Path, place: Path, provider: str = "cpu") -> Case:
    arguments = ["-y", "--provider", provider, "--threads", "1", "--engine", str(engine)]
    out = place / "out.png"
    return Case("runtime.video", [*arguments, "--source", str(image), "--out", str(out)], [out])


def mutate_model(content: bytes, rng: random.Random) -> bytes:
    """Return an ONNX file whose fields have other values, so that the file can be read."""
    model = onnx.load_from_string(content)
    for _ in range(rng.randint(1, 2)):
        mutate_fields(model.graph if rng.random() < 0.9 else model, rng)
    return model.SerializeToString()


def test_mutated_engines(worker: Worker, image: Path, seeds: range, tmp_path: Path) -> None:
    whole = [write_engine(tmp_path / "invert.onnx"), write_network(tmp_path / "network.onnx"), BUNDLED]

    def make_case(rng: random.Random, place: Path) -> Case:
        engine = place / "engine.onnx"
        content = rng.choice(whole).read_bytes()
        engine.write_bytes(mutate_bytes(content, rng) if rng.random() < 0.4 else mutate_model(content, rng))
        return restore(image, engine, place, rng.choice(("cpu", "cpu", "openvino", "auto")))

    run_cases(worker, "engine", make_case, ENGINE_WORDS, seeds=seeds, folder=tmp_path)


def test_mutated_specs(worker: Worker, image: Path, seeds: range, tmp_path: Path) -> None:
    model = onnx.load(write_engine(tmp_path / "invert.onnx"))
    spec = {**inspect(BUNDLED).to_dict(), "height": (1, 2000), "width": (1, 2000)}

    def make_case(rng: random.Random, place: Path) -> Case:
        text = mutate_json(spec, rng).decode(errors="replace")
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        onnx.save(model, place / "engine.onnx")
        if rng.random() < 0.2:  # a folder of engines, each of which may be left out
            shutil.copy(tmp_path / "invert.onnx", place / "whole.onnx")
            return restore(image, place, place)
        return restore(image, place / "engine.onnx", place)

    run_cases(worker, "spec", make_case, SPEC_WORDS, seeds=seeds, folder=tmp_path)


def test_mutated_sidecars(worker: Worker, image: Path, seeds: range, tmp_path: Path) -> None:
    onnx_file = write_engine(tmp_path / "invert.onnx")
    plan = write_plan(onnx_file, tmp_path, convolutions={"Half": 3}, kernels=4, workspace_mib=100)
    spec = EngineSpec(name="deblur", loss_db=0.1, measured_on="pairs", precision="fp16")
    values = {**json.loads(sidecar_path(plan).read_text()), "engine": dataclasses.asdict(spec)}

    def make_case(rng: random.Random, place: Path) -> Case:
        mutated = place / plan.name
        mutated.write_bytes(plan.read_bytes() if rng.random() < 0.9 else mutate_bytes(plan.read_bytes(), rng))
        sidecar_path(mutated).write_bytes(mutate_json(values, rng))
        return restore(image, mutated, place)

    run_cases(worker, "sidecar", make_case, SIDECAR_WORDS, seeds=seeds, folder=tmp_path)
