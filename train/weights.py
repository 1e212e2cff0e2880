"""Files of a checkpoint: the folder of a run, or a weights file of another project. Imports no torch."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = "generator.safetensors"
STATE = "state.pt"
PREVIOUS_STATE = "state.previous.pt"
CONFIG = "config.json"
SUFFIXES = frozenset({".safetensors", ".pth", ".pt", ".ckpt", ".h5", ".bin", ".tar"})
"""Ends of the names of weights files; DeblurGAN-v2's files end in `.h5` and are PyTorch's all the same."""
PUBLISHED_NETWORKS = ("deblurgan_v2", "mimo_unet", "nafnet", "restormer", "rt_focuser")
"""Networks that have published checkpoints, by their names in `train.models.GENERATORS`."""


def weights_path(run: Path) -> Path:
    """Return the weights of a run; `run` is its folder, or a weights file."""
    return run if run.suffix in SUFFIXES and not run.is_dir() else run / WEIGHTS


def config_path(run: Path) -> Path:
    """Return the settings of a run, next to its weights."""
    return weights_path(run).with_name(CONFIG)


def is_published(run: Path) -> bool:
    """Return whether `run` is a weights file of another project: one without our settings next to it."""
    path = weights_path(run)
    is_own = is_state(run) or (path.suffix == ".safetensors" and config_path(run).exists())
    return path == run and not is_own


def is_state(run: Path) -> bool:
    """Return whether `run` is the training state of a run, which holds its settings too."""
    return run.name in {STATE, PREVIOUS_STATE}


def needs_config(run: Path) -> bool:
    """Return whether the settings are in a file of their own, `config_path`."""
    return not (is_published(run) or is_state(run))
