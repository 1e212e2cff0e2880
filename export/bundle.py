"""`python -m export.bundle ENGINES --out NAME-VERSION.tar.zst`: pack engines and test frames into a bundle."""

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
from runtime.cli import run_cli, say
from runtime.errors import InputError, UsageError
from runtime.files import sha256, write_whole
from runtime.image_files import is_image
from runtime.install.bundle import BLURRED, MANIFEST, SHARP, Manifest
from runtime.install.gate import measure_psnr_db
from runtime.install.signature import sign
from runtime.parser import CommandParser
from runtime.spec import FLOAT_NCHW

_PATTERNS = ("*.onnx", "*.cache", "report.*", "*.png")
"""Files of an export that go into a bundle; plans do not, because each GPU needs its own and builds it."""
_COMPRESSION_LEVEL = 19


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = CommandParser("export.bundle", description=__doc__)
    add = parser.add_argument
    add("engines", type=Path, metavar="ENGINES", help="folder that python -m export wrote")
    add("--out", type=Path, required=True, metavar="FILE", help="bundle, such as deblur-1.2.0.tar.zst")
    add(
        "--pairs",
        type=Path,
        default=HELD_OUT,
        metavar="DIR",
        help="folder with blur/ and sharp/ that boards check the engines with (default: calib_data/held_out)",
    )
    add(
        "--key",
        type=Path,
        metavar="FILE",
        help="SSH key of ssh-keygen -t ed25519 that signs the bundle (default: none)",
    )
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def pack(engines: Path, pairs: Path, out: Path, *, key: Path | None = None) -> Manifest:
    """Write a bundle and return its manifest; the same files give the same bytes.

    A bundle contains the manifest, its signature if there is a `key`, and the files that the manifest lists.

    Raises UsageError for a name without a version or a key that cannot sign, InputError if engines or pairs are
    missing, EngineError if an engine does not run, OutputError if the bundle cannot be written.
    """
    match = re.fullmatch(r"([A-Za-z0-9._-]+?)-(\d[A-Za-z0-9._]*)\.tar\.zst", out.name)
    if not match:
        raise UsageError("the name of the bundle has no version", out, hint="name it like deblur-1.2.0.tar.zst")
    files = _find_files(engines, pairs)
    with TemporaryDirectory(prefix="deblur-bundle-") as name:
        folder = Path(name)
        for target, path in files.items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / target)
        onnx_names = [target for target in files if target.endswith(".onnx")]
        try:
            manifest = Manifest(
                name=match[1],
                version=match[2],
                files={target: sha256(folder / target) for target in sorted(files)},
                gate_psnr_db={target: measure_psnr_db(folder / target, folder, "cpu") for target in onnx_names},
            )
        except ValueError as error:
            raise InputError(f"cannot be packed ({error})", engines, hint="rename it") from error
        (folder / MANIFEST).write_text(manifest.to_json())
        first = [MANIFEST, *([sign(folder / MANIFEST, key).name] if key else [])]
        write_whole(out, _compress(folder, [*first, *sorted(files)]))
    return manifest


def _find_files(engines: Path, pairs: Path) -> dict[str, Path]:
    """Return the files of a bundle by their name in it; raises InputError if engines or pairs are missing."""
    engine_files = (path for pattern in _PATTERNS for path in sorted(engines.glob(pattern)))
    files = {path.name: path for path in engine_files if not path.stem.endswith(FLOAT_NCHW)}
    if not any(path.suffix == ".onnx" for path in files.values()):
        raise InputError("no engines found", engines, hint="give a folder that python -m export wrote")
    blurred = sorted(path for path in (pairs / "blur").glob("*") if is_image(path))
    if not blurred or not all((pairs / "sharp" / path.name).is_file() for path in blurred):
        raise InputError("no pairs found", pairs, hint="give a folder with the same names in blur/ and sharp/")
    for path in blurred:
        files |= {f"{BLURRED}/{path.name}": path, f"{SHARP}/{path.name}": pairs / "sharp" / path.name}
    return files


def _compress(folder: Path, names: list[str]) -> bytes:
    """Return a compressed archive of files, without times and owners, in the order of `names`."""
    import zstandard  # noqa: PLC0415 - an optional dependency

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:  # boards read no extensions
        for name in names:
            content = (folder / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            try:
                archive.addfile(member, io.BytesIO(content))
            except ValueError as error:
                raise InputError(f"cannot be packed ({error})", name, hint="give it a shorter name") from error
    return bytes(zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL, write_checksum=True).compress(buffer.getvalue()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)

    def run(_: object) -> int:
        manifest = pack(options.engines, options.pairs, options.out, key=options.key)
        for name, psnr_db in manifest.gate_psnr_db.items():
            say(f"gate    {name}: {psnr_db:.2f} dB")
        say(f"bundle  {options.out}: {manifest.name} {manifest.version}, {len(manifest.files)} files")
        return 0

    return run_cli(run, debug=options.debug)


if __name__ == "__main__":
    sys.exit(main())
