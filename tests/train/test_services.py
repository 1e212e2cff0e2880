"""Services that record a run too, with stand-ins for their packages."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.train.test_training import SMALL, small
from train.__main__ import main
from train.training.loop import train
from train.training.run_log import read_log

LOGGED = {"train/content_loss", "train/charbonnier_loss", "train/generator_gradient_norm", "validation/psnr_db"}


class Record:
    """Calls that a stand-in has received."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.closed = 0
        self.fails = False

    def add(self, step: int, numbers: dict[str, Any]) -> None:
        if self.fails:
            raise ConnectionError("no route to host")
        self.logged.append((step, numbers))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Record:
    record = Record()

    def init(**settings: Any) -> Any:
        record.runs.append(settings)
        return SimpleNamespace(
            id=settings["id"] or "abc",
            define_metric=lambda name, step_metric: None,
            log=lambda numbers: record.add(numbers["step"], {k: v for k, v in numbers.items() if k != "step"}),
            finish=record.close,
        )

    module = ModuleType("wandb")
    module.init, module.Image = init, lambda image: image
    monkeypatch.setitem(sys.modules, "wandb", module)
    return record


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Record:
    record = Record()

    class Client:
        def create_run(self, experiment: str, run_name: str) -> Any:
            record.runs.append({"experiment": experiment, "name": run_name})
            return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

        def update_run(self, run_id: str, status: str) -> None:
            record.runs.append({"id": run_id, "status": status})

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            assert run_id == "r1"
            if params:
                record.runs[-1]["params"] = dict(params)
            for name, value, _, step in metrics:
                record.add(step, {name: value})

        def log_image(self, run_id: str, image: np.ndarray, artifact_file: str) -> None:
            record.add(int(artifact_file[8:16]), {"image": image})

        def set_terminated(self, run_id: str) -> None:
            record.close()

    module, entities = ModuleType("mlflow"), ModuleType("mlflow.entities")
    module.MlflowClient = Client
    module.set_experiment = lambda name: SimpleNamespace(experiment_id=f"id of {name}")
    entities.Metric = lambda name, value, time_ms, step: (name, value, time_ms, step)
    entities.Param = lambda name, value: (name, value)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return record


def test_wandb_gets_every_number_and_image_and_a_resumed_run_continues(
    wandb: Record, photos: Path, tmp_path: Path
) -> None:
    recipe = small("max_steps=3", "image_steps=3", "log_steps=2")
    train(recipe, data=[photos], run=tmp_path / "mine", services=["wandb"])
    assert [run["id"] for run in wandb.runs] == [None]
    assert (wandb.runs[0]["name"], wandb.runs[0]["config"]["batch"]) == ("mine", 4)
    assert [step for step, _ in wandb.logged] == [2, 3, 3]
    assert wandb.logged[0][1].keys() >= {"steps/charbonnier_loss", "steps/generator_gradient_norm"}
    assert wandb.logged[1][1]["blurred, restored, sharp"].shape[2] == 3
    (entry,) = read_log(tmp_path / "mine")
    assert wandb.logged[2][1].keys() >= LOGGED
    assert all(wandb.logged[2][1][name] == entry[name] for name in LOGGED)
    assert wandb.closed == 1
    train(small("max_steps=6"), data=[photos], run=tmp_path / "mine", services=["wandb"], resume=True)
    assert (wandb.runs[1]["id"], wandb.runs[1]["resume"]) == ("abc", "allow")
    assert wandb.logged[-1][0] == 6


def test_mlflow_gets_every_number_and_image_and_a_resumed_run_continues(
    mlflow: Record, photos: Path, tmp_path: Path
) -> None:
    train(small("max_steps=3", "image_steps=3"), data=[photos], run=tmp_path / "mine", services=["mlflow"])
    assert (mlflow.runs[0]["experiment"], mlflow.runs[0]["name"]) == ("id of deblur", "mine")
    assert mlflow.runs[0]["params"]["batch"] == "4"
    names = {name for step, numbers in mlflow.logged for name in numbers if step == 3}
    assert names >= LOGGED | {"image"}
    assert mlflow.closed == 1
    train(small("max_steps=6"), data=[photos], run=tmp_path / "mine", services=["mlflow"], resume=True)
    assert mlflow.runs[1] == {"id": "r1", "status": "RUNNING"}
    assert mlflow.logged[-1][0] == 6


def test_a_service_that_fails_during_a_run_is_left_out_with_one_note(
    wandb: Record, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wandb.fails = True
    train(small(), data=[photos], run=tmp_path, services=["wandb"])
    assert [line["step"] for line in read_log(tmp_path)] == [3, 6, 9]
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert text.count("note: --log wandb failed (ConnectionError: no route to host)") == 1


def test_a_missing_package_and_a_service_that_cannot_begin_are_one_line(
    wandb: Record, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [text for override in [*SMALL, "max_steps=1"] for text in ("--set", override)]
    arguments = ["--data", str(photos), "--out", str(tmp_path / "run"), *settings]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert main([*arguments, "--log", "mlflow"]) == 2
    assert capsys.readouterr().err == (
        "error: --log mlflow: mlflow is not installed; run: python -m pip install mlflow\n"
    )
    assert not (tmp_path / "run").exists()

    def refuse(**_: Any) -> None:
        raise ValueError("api_key\nnot configured")

    monkeypatch.setattr(sys.modules["wandb"], "init", refuse)
    assert main([*arguments, "--log", "wandb"]) == 2
    error = capsys.readouterr().err
    assert "error: --log wandb: no run can be begun (ValueError: api_key not configured); check the settings" in error
