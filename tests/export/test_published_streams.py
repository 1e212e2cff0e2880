"""Weights of each published network become engines for both forms of frames, which restore a clip."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from export.__main__ import main
from runtime.metrics import psnr_db
from runtime.video import main as run_video
from tests.conftest import write_clip
from tests.export.test_fuse import REDUCED
from train.models import create_generator, restore_frames
from train.weights import PUBLISHED_NETWORKS

SIZE = (128, 96)
SLOW = {"restormer", "rt_focuser"}
"""Networks of hundreds of weights, whose export from PyTorch takes long."""
NAMES = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PUBLISHED_NETWORKS]


def read_frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", NAMES)
def test_weights_become_engines_that_restore_a_clip(name: str, tmp_path: Path, pairs: Path) -> None:
    torch.manual_seed(0)
    generator = create_generator(name, **REDUCED[name]).eval()
    for key, weight in generator.named_parameters():
        if key.endswith(("beta", "gamma")):  # 0 in a new NAFNet, which then does nothing
            torch.nn.init.uniform_(weight, -0.5, 0.5)
    torch.save(generator.state_dict(), tmp_path / "weights.pth")
    arguments = [str(tmp_path / "weights.pth"), "--out", str(tmp_path / "engines"), "--pairs", str(pairs)]
    if name == "deblurgan_v2":
        arguments += ["--option", "statistics=trained"]
    assert main([*arguments, "--precision", "fp32"]) == 0  # both forms agree with PyTorch, or nothing is written
    write_clip(tmp_path / "clip.mp4", size=SIZE, pts=[0, 512, 1024])
    frames = np.stack(read_frames(tmp_path / "clip.mp4"))
    expected = restore_frames(generator, torch.from_numpy(frames)).numpy()
    unchanged_db = psnr_db(frames, expected)
    for pixels in ("bgr", "yuv420"):
        out = tmp_path / f"{pixels}.mp4"
        options = [
            "--engine",
            str(tmp_path / "engines"),
            "--pixels",
            pixels,
            "--crf",
            "5",
            "--provider",
            "cpu",
            "--guard",
            "off",
        ]
        assert run_video(["--source", str(tmp_path / "clip.mp4"), "--out", str(out), *options]) == 0
        assert psnr_db(np.stack(read_frames(out)), expected) > max(25, unchanged_db + 5)  # 4:2:0 costs fine colours
