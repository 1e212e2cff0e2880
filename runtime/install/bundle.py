"""Content of a bundle, and how it is unpacked: no file is used before the bundle is known to be whole and signed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from runtime.errors import InputError, UsageError
from runtime.files import output_error
from runtime.install.signature import SIGNATURE, verify

MANIFEST = "manifest.json"
BLURRED, SHARP = "gate/blur", "gate/sharp"
"""Folders of the test images, with the same names in both."""
SCHEMA = 1
_MAX_FILE_BYTES = 4 << 30
_MAX_MANIFEST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The first file of a bundle: the part that is signed, with the SHA-256 of all other files.

    Raises ValueError for an unknown schema, a name, version or path that is not allowed, and missing PSNR values.
    """

    name: str
    version: str
    files: dict[str, str]
    """SHA-256 by path: engines, calibration caches and reports at the top, test images in `gate/`."""
    gate_psnr_db: dict[str, float]
    """PSNR in dB of each engine, mean over the test images, on the machine that made the bundle."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is unknown, expected {SCHEMA}")
        if not all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", text) for text in (self.name, self.version)):
            raise ValueError(
                f"name and version may have letters, digits, '.', '_' and '-', got {self.name} {self.version}"
            )
        for path in self.files:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or path in {MANIFEST, SIGNATURE}:
                raise ValueError(f"path is not allowed in a bundle: {path!r}")
        if set(self.gate_psnr_db) != set(self.engines):
            raise ValueError("the engines and their PSNR values do not match")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Return the manifest that `to_json` wrote; raises ValueError."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")  # noqa: TRY004 - a bad value
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error

    @property
    def folder_name(self) -> str:
        """Name of the folder of this version; different content has a different name."""
        return f"{self.version}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:8]}"

    @property
    def engines(self) -> list[str]:
        """Names of the ONNX engines, sorted."""
        return sorted(path for path in self.files if path.endswith(".onnx"))


def unpack(bundle: Path, folder: Path, *, signers: Path | None) -> tuple[Manifest, str]:
    """Unpack a bundle into an empty folder, flush it to the disk, and return its manifest and the name of its signer.

    `signers` is an allowed-signers file of OpenSSH; without it the signature is not checked, and the name is empty.
    Raises InputError if a file is missing or damaged, or if no allowed signer signed the bundle, and OutputError if the
    folder cannot be written.
    """
    with _open_archive(bundle) as archive:
        members = iter(archive)
        content = _read_small_file(archive, next(members, None), MANIFEST, bundle)
        member = next(members, None)
        signature = None
        if member is not None and member.name == SIGNATURE:
            signature = _read_small_file(archive, member, SIGNATURE, bundle)
            member = next(members, None)
        signer = verify(content, signature, signers, bundle) if signers else ""
        try:
            manifest = Manifest.from_json(content.decode())
        except ValueError as error:
            raise _damaged_error(f"{MANIFEST}: {error}", bundle) from error
        _write_file(folder / MANIFEST, iter([content]))
        missing = dict(manifest.files)
        while member is not None:
            expected_sha256 = missing.pop(member.name, None)
            file = archive.extractfile(member) if member.isfile() else None
            if expected_sha256 is None or file is None:
                raise _damaged_error(f"{member.name} is not in its manifest", bundle)
            if _write_file(folder / member.name, _read_chunks(file)) != expected_sha256:
                raise _damaged_error(f"{member.name} does not match its manifest", bundle)
            member = next(members, None)
    if missing:
        raise _damaged_error(f"{min(missing)} is missing", bundle)
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync_folder(path)
    return manifest, signer


def sync_folder(folder: Path) -> None:
    """Flush the names of a folder's files to the disk, so that they survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _open_archive(bundle: Path) -> Iterator[tarfile.TarFile]:
    """Open a bundle as a stream; InputError for anything that cannot be read or decompressed."""
    try:
        import zstandard  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise UsageError("zstandard is not installed", hint="pip install 'deblur-toolkit[bundle]'") from error
    try:
        with (
            bundle.open("rb") as compressed,
            zstandard.ZstdDecompressor().stream_reader(compressed) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            yield archive
            while stream.read(_CHUNK_BYTES):  # to the end, where the checksum is compared
                pass
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", bundle, hint="copy it again") from error
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        raise _damaged_error(str(error), bundle) from error


def _read_small_file(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, bundle: Path) -> bytes:
    file = archive.extractfile(member) if member and member.isfile() and member.name == name else None
    if member is None or file is None or member.size > _MAX_MANIFEST_BYTES:
        raise _damaged_error(f"it does not begin with {name}", bundle)
    return file.read()


def _read_chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _write_file(path: Path, chunks: Iterator[bytes]) -> str:
    """Write a file, flush it to the disk, and return its SHA-256."""
    digest, size = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            for chunk in chunks:
                size += len(chunk)
                if size > _MAX_FILE_BYTES:
                    raise InputError(
                        f"file is larger than {_MAX_FILE_BYTES >> 30} GiB", path.name, hint="make the bundle again"
                    )
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise output_error(path, error) from error
    return digest.hexdigest()


def _damaged_error(reason: str, bundle: Path) -> InputError:
    return InputError(f"bundle is damaged ({reason})", bundle, hint="copy it again; nothing was changed")
