"""Bundles that tests pack, and boards that they install them on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import onnx

from runtime.engines import BUNDLED
from runtime.files import sha256
from runtime.install import __main__ as installer
from runtime.install.bundle import Manifest
from tests.conftest import make_image


def write_pairs(folder: Path) -> Path:
    """Write two pairs of test images and return their folder."""
    for name in ("blur", "sharp"):
        (folder / name).mkdir(parents=True)
    for index in range(2):
        sharp = make_image(96, 64, seed=index)
        cv2.imwrite(str(folder / "sharp" / f"{index}.png"), sharp)
        cv2.imwrite(str(folder / "blur" / f"{index}.png"), cv2.blur(sharp, (3, 1)))
    return folder


def engines(folder: Path, *, worse: bool = False) -> Path:
    """Write a folder like an export's, with one engine; a worse one flips bits of every output value."""
    folder.mkdir()
    target = folder / "deblur_int8_cpu.onnx"
    if not worse:
        shutil.copy(BUNDLED, target)
        return folder
    model = onnx.load(str(BUNDLED))
    final = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["original_sharp" if name == final else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(40, np.uint8), "bits"))
    model.graph.node.append(onnx.helper.make_node("BitwiseXor", ["original_sharp", "bits"], [final]))
    onnx.save(model, target)
    return folder


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)  # noqa: S607


def signers(path: Path, key: Path) -> Path:
    path.write_text(f"builder@example.org {key.with_suffix('.pub').read_text()}")
    return path


def install(bundle: Path, board: Path, *options: str | Path) -> int:
    return installer.main([str(bundle), "--to", str(board), "--provider", "cpu", *map(str, options)])


def version(board: Path) -> str:
    """Return the current version, after checking that all its files are undamaged."""
    current = board / "current"
    manifest = Manifest.from_json((current / "manifest.json").read_text())
    for name, digest in manifest.files.items():
        assert sha256(current / name) == digest
    return manifest.version
