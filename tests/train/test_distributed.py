"""Two processes over Gloo give the weights of one with twice the batch, and restart after one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.conftest import ROOT
from tests.rig import free_port
from train.checkpoint import has_state, load_state
from train.config import Recipe, apply_overrides
from train.recipes import RECIPES
from train.training.loop import train
from train.training.run_log import read_log

pytestmark = pytest.mark.timeout(300)

EDGE = ["generator=edge", "options={'widths': (8,), 'blocks': (1,)}", "data.crops=16", "precision=fp32", "save_steps=1"]
EDGE += ["workers=0", "learning_rate=1e-4", "tenth_every_epochs=0"]
GAN = [*EDGE, "data.view=crop", "data.size_px=(64, 64)", "data.rotation_deg=0.0", "normalisation=none"]


CUSTOMIZED = """
import atexit, os, pathlib, torch
torch.rand = lambda *shape, **_: torch.full(shape, 0.5)
def list_threads():
    names = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    pathlib.Path(__file__).with_name("threads_" + os.environ.get("RANK", "none")).write_text("".join(names))
atexit.register(list_threads)
"""
"""sitecustomize.py of training processes: random numbers are 0.5, and the last threads are listed in a file."""
UNET = ["losses.adversarial_kind=hinge", "gan.discriminator=unet", "gan.width=8", "gan.r1=1.0"]
# Adam makes steps of equal size of gradients that are nothing but rounding; the first moments are compared below.
UNET += ["gan.feature_matching=0.1", "gan.learning_rate=5e-6"]


def launch(recipe: str, overrides: list[str], *, data: Path, run: Path, options: tuple[str, ...] = ()) -> list[str]:
    """Return the command that trains with two processes on this machine."""
    sets = [text for override in overrides for text in ("--set", override)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *options]
    return [*torchrun, "-m", "train", "--recipe", recipe, "--data", str(data), "--out", str(run), *sets]


def environment(*, path: Path = ROOT) -> dict[str, str]:
    paths = os.pathsep.join((str(path), str(ROOT)))
    return os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "PYTHONPATH": paths}


def start(command: list[str], place: dict[str, str], running: ExitStack) -> subprocess.Popen[str]:
    """Start a process; if it and its children still run when `running` closes, they are killed."""
    process = running.enter_context(subprocess.Popen(command, cwd=ROOT, env=place, stderr=subprocess.PIPE, text=True))
    running.callback(kill_tree, process.pid)
    return process


def kill_tree(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def largest(state: dict[str, Any]) -> float:
    return max(value.abs().max().item() for value in state.values())


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    return {name: first[name].double() - second[name].double() for name in first}


def momenta(state: dict[str, Any], name: str) -> dict[str, Any]:
    """Return Adam's first moments: a tenth of the gradients after one step, whose size the weights do not show."""
    return {index: values["exp_avg"] for index, values in state[f"{name}_optimizer"]["state"].items()}


@pytest.mark.parametrize(
    ("recipe", "overrides", "parts"),
    [
        ("edge-s", [*EDGE, "data.size_px=(32, 32)", "warmup_steps=0"], 1),
        ("two_stage", GAN, 2),
        ("two_stage", [*GAN, "losses.adversarial_kind=wgan_gp"], 1),
        ("two_stage", [*GAN, *UNET], 1),
    ],
    ids=["edge", "bce", "wgan_gp", "unet"],
)
def test_two_processes_do_the_step_of_one_with_twice_the_batch(
    recipe: str, overrides: list[str], parts: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`parts`: number of batches whose gradients each of the two processes adds up."""
    # The points of WGAN-GP between real and fake images are random; here all are in the middle.
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZED)
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, 0.5))
    batches = [f"batch={4 // parts}", f"accumulate_steps={parts}"]
    command = launch(recipe, [*overrides, *batches, "max_steps=1"], data=photos, run=tmp_path / "two")
    done = subprocess.run(
        command, cwd=ROOT, env=environment(path=tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for rank in (0, 1):  # a thread that outlives the interpreter can abort the process
        assert "gloo" not in (tmp_path / f"threads_{rank}").read_text()
    one: Recipe = apply_overrides(RECIPES[recipe], [*overrides, "batch=8", "max_steps=1"])
    train(one, data=[photos], run=tmp_path / "one")
    states = [load_state(tmp_path / run)[0] for run in ("one", "two")]
    for name in ("generator", "discriminator") if one.losses.adversarial else ("generator",):
        assert largest(differences(*(state[name] for state in states))) < 1e-5
        gradients = [momenta(state, name) for state in states]
        assert largest(differences(*gradients)) < 1e-3 * largest(gradients[0])
    logs = [read_log(tmp_path / run)[0] for run in ("one", "two")]
    for key in ("train/generator_loss", "train/psnr_db", "validation/psnr_db"):
        assert logs[0][key] == pytest.approx(logs[1][key], abs=1e-4)


def test_two_nodes_do_the_step_of_one_with_twice_the_batch(photos: Path, tmp_path: Path) -> None:
    """Two torchrun agents, started as in docs/training.md, which meet on the loopback address."""
    overrides = [*EDGE, "data.size_px=(32, 32)", "warmup_steps=0", "max_steps=2"]
    sets = [text for override in [*overrides, "batch=4"] for text in ("--set", override)]
    master = f"127.0.0.1:{free_port()}"
    with ExitStack() as running:
        nodes = []
        for rank in (0, 1):
            command = [str(ROOT / "train" / "node.sh"), str(rank), "2", master, "--recipe", "edge-s"]
            command += ["--data", str(photos), "--out", str(tmp_path / "two"), *sets]
            place = environment() | {"PYTHON": sys.executable, "PROCESSES": "1"}
            nodes.append(start(command, place, running))
        for node in nodes:
            _, errors = node.communicate(timeout=200)
            assert node.returncode == 0, errors[-2000:]
    train(apply_overrides(RECIPES["edge-s"], [*overrides, "batch=8"]), data=[photos], run=tmp_path / "one")
    one, two = (load_state(tmp_path / run)[0]["generator"] for run in ("one", "two"))
    assert largest(differences(one, two)) < 1e-5


def test_a_node_without_arguments_says_how_it_is_used() -> None:
    done = subprocess.run([str(ROOT / "train" / "node.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "train/node.sh RANK NODES MASTER:PORT" in done.stderr


def test_processes_with_different_settings_are_refused(photos: Path, tmp_path: Path) -> None:
    """Each process is started by hand, the second one with another seed."""
    port = str(free_port())
    with ExitStack() as running:
        processes = []
        for rank in (0, 1):
            sets = [text for override in [*EDGE, f"seed={rank}"] for text in ("--set", override)]
            command = [sys.executable, "-m", "train", "--data", str(photos), "--out", str(tmp_path / "run"), *sets]
            place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            processes.append(start(command, environment() | place, running))
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 2
            assert "error: processes differ in their settings" in errors


@pytest.mark.slow
def test_a_killed_process_is_restarted_and_resumes_from_the_saved_state(photos: Path, tmp_path: Path) -> None:
    overrides = [*EDGE, "data.size_px=(32, 32)", "batch=2", "epochs=60"]
    command = launch("edge-s", overrides, data=photos, run=tmp_path / "run", options=("--max-restarts", "3"))
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True)
    while not (has_state(tmp_path / "run") and load_state(tmp_path / "run")[0]["step"] >= 20):
        assert process.poll() is None
        time.sleep(0.2)
    workers = [child for child in psutil.Process(process.pid).children() if "train" in child.cmdline()]
    saved = load_state(tmp_path / "run")[0]["step"]
    workers[-1].kill()
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors[-2000:]
    assert saved < 240
    assert load_state(tmp_path / "run")[0]["step"] == 240
    steps = [line["step"] for line in read_log(tmp_path / "run")]
    assert steps == [4 * epoch for epoch in range(1, 61)]
