"""Options of networks that change their graph: ONNX and engines agree with PyTorch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from export.__main__ import main
from export.graph.channel_order import to_bgr_order
from export.graph.fuse import fuse_convolutions
from export.torch_to_onnx import export_to_onnx
from runtime.engines import open_engine
from runtime.metrics import psnr_db
from tests.conftest import ROOT
from tests.export.test_fuse import kinds, run
from tests.train.conftest import lpips_file, write_gopro
from train.checkpoint import load_generator
from train.config import apply_overrides
from train.models import create_generator, restore_frames
from train.recipes import RECIPES
from train.training.loop import train
from train.training.run_log import read_log

LEAST_DB = {"fp32": 50, "fp16": 45, "int8_cpu": 30}
"""Smallest agreement of an engine with the network."""


def test_channel_attention_is_exported_and_fused() -> None:
    torch.manual_seed(0)
    generator = create_generator("two_stage_cnn", channel_attention=True).eval()
    for key, parameter in generator.named_parameters():
        if "attend" in key:  # it begins with factors of 1
            nn.init.normal_(parameter)
    core = export_to_onnx(generator)
    fused = fuse_convolutions(core)
    assert kinds(fused)["Conv"] < kinds(core)["Conv"]
    bgr = to_bgr_order(fused)
    for height, width in ((24, 40), (40, 16)):
        nchw = np.random.default_rng(0).uniform(-1, 1, (2, 3, height, width)).astype(np.float32)
        with torch.inference_mode():
            expected = generator(torch.from_numpy(nchw)).numpy()
        for model in (core, fused):
            assert run(model, nchw) == pytest.approx(expected, abs=1e-4)
        flipped = run(bgr, np.ascontiguousarray(nchw[:, ::-1]))[:, ::-1]
        assert flipped == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("precisions", ["fp32", pytest.param("fp16,int8_cpu", marks=pytest.mark.slow)])
def test_the_full_recipe_trains_and_becomes_engines(precisions: str, tmp_path: Path, pairs: Path) -> None:
    """Everything that the abstract of the DeblurGAN-v2 paper names, with a small encoder of random weights."""
    lpips_file(tmp_path / "lpips.safetensors")
    data = write_gopro(tmp_path / "data", sequences={"train/A": 4, "test/B": 2}, size=(160, 144))
    recipe = apply_overrides(
        RECIPES["deblurgan_v2_full"],
        [
            "options.pretrained=None",
            "options.size=18",
            "options.width=8",
            "gan.width=4",
            f"losses.lpips_weights={tmp_path / 'lpips.safetensors'}",
            "data.size_px=(128, 128)",
            "batch=2",
            "epochs=2",
            "learning_rate=1e-3",
            "workers=0",
        ],
    )
    train(recipe, data=[data], run=tmp_path / "run")
    entries = read_log(tmp_path / "run")
    assert [entry["skipped_steps"] for entry in entries] == [0, 0]
    assert entries[1]["train/content_loss"] < entries[0]["train/content_loss"]
    assert {"validation/lpips", "train/adversarial_loss", "train/discriminator_loss"} <= entries[0].keys()
    generator, config = load_generator(tmp_path / "run")
    assert (config["options"]["attention"], config["options"]["dense_skips"]) == (True, True)
    arguments = [str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--pairs", str(pairs), "--pixels", "bgr"]
    assert main([*arguments, "--calib-method", "minmax", "--precision", precisions]) == 0
    photograph = cv2.imread(str(ROOT / "calib_data" / "held_out" / "blur" / "chelsea_2.jpg"))[:186, :250]
    expected = restore_frames(generator, torch.from_numpy(photograph[None])).numpy()[0]
    for precision in precisions.split(","):
        engine = open_engine(tmp_path / "out" / f"deblur_{precision}.onnx", provider="cpu")
        assert psnr_db(engine.infer(photograph[None])[0], expected) > LEAST_DB[precision]
