"""`python -m export.bundle ENGINES --out NAME-VERSION.tar.zst`: engines for the boards, with what proves them there."""

from __future__ import annotations

import argparse
import io
import re
import shutil
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from calib_data import HELD_OUT
from runtime.cli import say
from runtime.errors import DeblurError, InputError, UsageError
from runtime.files import sha256, write_whole
from runtime.image_files import is_image
from runtime.install.bundle import BLURRED, MANIFEST, SHARP, Manifest, sign
from runtime.install.gate import measured

_KEPT = ("*.onnx", "*.cache", "report.*", "*.png")
"""Not plans: those are for one GPU, and built there."""
_LEVEL = 19


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m export.bundle", description=__doc__)
    add = parser.add_argument
    add("engines", type=Path, metavar="ENGINES", help="folder that python -m export wrote")
    add("--out", type=Path, required=True, metavar="FILE", help="NAME-VERSION.tar.zst, such as deblur-1.2.0.tar.zst")
    add("--pairs", type=Path, default=HELD_OUT, metavar="DIR", help="blur/ and sharp/ that engines are proved with")
    add("--key", type=Path, metavar="FILE", help="SSH key that signs it (ssh-keygen -t ed25519)")
    return parser.parse_args(arguments)


def pack(engines: Path, pairs: Path, out: Path, *, key: Path | None = None) -> Manifest:
    """Write a bundle: manifest, signature, and the files that the manifest names; the same bytes for the same files.

    Raises UsageError for a name without a version or a key that does not sign, InputError where engines or pairs are
    missing, what engines raise that do not run, OutputError.
    """
    named = re.fullmatch(r"([A-Za-z0-9._-]+?)-(\d[A-Za-z0-9._]*)\.tar\.zst", out.name)
    if not named:
        raise UsageError("the name has no version", out, hint="name it like deblur-1.2.0.tar.zst")
    files = {path.name: path for pattern in _KEPT for path in sorted(engines.glob(pattern))}
    onnx = [path for path in files.values() if path.suffix == ".onnx"]
    if not onnx:
        raise InputError("no engines found", engines, hint="give what python -m export wrote")
    blurred = sorted(path for path in (pairs / "blur").glob("*") if is_image(path))
    if not blurred or not all((pairs / "sharp" / path.name).is_file() for path in blurred):
        raise InputError("no pairs found", pairs, hint="give a folder with blur/ and sharp/, of the same names")
    for path in blurred:
        files |= {f"{BLURRED}/{path.name}": path, f"{SHARP}/{path.name}": pairs / "sharp" / path.name}
    with TemporaryDirectory(prefix="deblur-bundle-") as name:
        folder = Path(name)
        for target, path in files.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / target)
        manifest = Manifest(
            name=named[1],
            version=named[2],
            files={target: sha256(folder / target) for target in sorted(files)},
            gate_psnr_db={path.name: measured(folder / path.name, folder, "cpu") for path in onnx},
        )
        (folder / MANIFEST).write_text(manifest.to_json())
        first = [MANIFEST, *([sign(folder / MANIFEST, key).name] if key else [])]
        write_whole(out, _archived(folder, [*first, *sorted(files)]))
    return manifest


def _archived(folder: Path, names: list[str]) -> bytes:
    import zstandard  # noqa: PLC0415 - only for those who make bundles

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            content = (folder / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return bytes(zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(packed.getvalue()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = parse(arguments)
    try:
        manifest = pack(options.engines, options.pairs, options.out, key=options.key)
    except DeblurError as error:
        say(f"error: {error}")
        return error.exit_code
    for name, decibels in manifest.gate_psnr_db.items():
        say(f"gate    {name}: {decibels:.2f} dB")
    say(f"bundle  {options.out}: {manifest.name} {manifest.version}, {len(manifest.files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
