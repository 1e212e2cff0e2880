"""Services that can record a run too, `python -m train --log wandb` or `mlflow`; their packages are optional."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from runtime.errors import UsageError
from runtime.files import write_whole
from train.training.trackers import SAMPLES, Tracker

Service = Literal["wandb", "mlflow"]
"""Names of the services, which are those of their packages."""
_MAX_PARAMETER_CHARS = 500
"""Longest value of a setting that all versions of MLflow take."""


class Wandb:
    """A run of Weights & Biases; a resumed training continues it."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Begin or continue the run whose id is in `wandb.json` of the folder `run`."""
        self._package = _import("wandb")
        self._run = self._package.init(
            project="deblur",
            name=run.name,
            dir=str(run),
            id=_read_id(run, "wandb"),
            resume="allow",
            config=dict(settings),
        )
        _write_id(run, "wandb", self._run.id)
        # Steps that a resumed training repeats are lower than the last one, which the default step must not be.
        self._run.define_metric("*", step_metric="step")

    def add_numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        self._run.log({**numbers, "step": step})

    def add_image(self, image: NDArray[np.uint8], *, step: int) -> None:
        self._run.log({SAMPLES: self._package.Image(image), "step": step})

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """A run of MLflow, in the store that `MLFLOW_TRACKING_URI` names; a resumed training continues it."""

    def __init__(self, run: Path, settings: Mapping[str, Any]) -> None:
        """Begin or continue the run whose id is in `mlflow.json` of the folder `run`."""
        package = _import("mlflow")
        self._client, self._entities = package.MlflowClient(), import_module("mlflow.entities")
        known = _read_id(run, "mlflow")
        if known is None:
            experiment = package.set_experiment("deblur")
            known = self._client.create_run(experiment.experiment_id, run_name=run.name).info.run_id
            texts = {name: json.dumps(value)[:_MAX_PARAMETER_CHARS] for name, value in settings.items()}
            self._client.log_batch(known, params=[self._entities.Param(*item) for item in texts.items()])
            _write_id(run, "mlflow", known)
        else:
            self._client.update_run(known, status="RUNNING")
        self._id: str = known

    def add_numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        now_ms = int(1000 * time.time())
        metrics = [self._entities.Metric(name, value, now_ms, step) for name, value in numbers.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def add_image(self, image: NDArray[np.uint8], *, step: int) -> None:
        self._client.log_image(self._id, image, artifact_file=f"samples/{step:08}.png")

    def close(self) -> None:
        self._client.set_terminated(self._id)


class _Optional:
    """A tracker without which a training goes on, if it fails."""

    def __init__(self, name: Service, tracker: Tracker) -> None:
        self._name = name
        self._tracker: Tracker | None = tracker

    def add_numbers(self, numbers: Mapping[str, float], *, step: int) -> None:
        self._try(lambda tracker: tracker.add_numbers(numbers, step=step))

    def add_image(self, image: NDArray[np.uint8], *, step: int) -> None:
        self._try(lambda tracker: tracker.add_image(image, step=step))

    def close(self) -> None:
        self._try(lambda tracker: tracker.close())

    def _try(self, call: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            call(self._tracker)
        except Exception as error:  # noqa: BLE001 - packages of others raise what they like
            self._tracker = None
            line = (
                f"note: --log {self._name} failed ({_describe(error)}); the training goes on, log.jsonl has the numbers"
            )
            tqdm.write(line)


_SERVICES: dict[Service, Callable[[Path, Mapping[str, Any]], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow}


def require_services(names: Sequence[Service]) -> None:
    """Raise UsageError if the package of a tracker cannot be imported."""
    for name in names:
        _import(name)


def open_services(names: Sequence[Service], *, run: Path, settings: Mapping[str, Any]) -> list[Tracker]:
    """Return the trackers of `--log`; raises UsageError if a run cannot be begun.

    One that fails later is left out from then on, with a note.

    `settings`: those of the recipe, which are recorded with a new run.
    """
    trackers: list[Tracker] = []
    for name in names:
        try:
            trackers.append(_Optional(name, _SERVICES[name](run, settings)))
        except UsageError:
            raise
        except Exception as error:  # packages of others raise what they like
            what = f"--log {name}: no run can be begun ({_describe(error)})"
            raise UsageError(what, hint=f"check the settings of {name}, or leave out --log {name}") from error
    return trackers


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _import(name: Service) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(f"--log {name}: {name} is not installed", hint=f"run: python -m pip install {name}") from error


def _read_id(run: Path, name: Service) -> str | None:
    try:
        return str(json.loads((run / f"{name}.json").read_text())["id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_id(run: Path, name: Service, value: str) -> None:
    write_whole(run / f"{name}.json", f"{json.dumps({'id': value})}\n".encode())
