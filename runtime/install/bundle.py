"""Content of a bundle, and how it is unpacked: no file is used before the bundle is known to be whole and signed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runtime.files import output_error
from runtime.install.archive import Archive, Member, damaged_error, open_archive
from runtime.install.signature import SIGNATURE, verify
from runtime.json_text import parse_json, require_field_types

MANIFEST = "manifest.json"
BLURRED, SHARP = "gate/blur", "gate/sharp"
"""Folders of the test images, with the same names in both."""
SCHEMA = 1
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_PATH_BYTES = 255
"""Longest path in a bundle, and longest name of a file on most disks, in bytes."""


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
        require_field_types(self)
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema} is unknown, expected {SCHEMA}")
        if not all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", text) for text in (self.name, self.version)):
            raise ValueError(
                f"name and version may have letters, digits, '.', '_' and '-', got {self.name} {self.version}"
            )
        for path in self.files:
            if not _is_allowed_path(path) or any(str(parent) in self.files for parent in PurePosixPath(path).parents):
                raise ValueError(f"path is not allowed in a bundle: {path!r}")
        if set(self.gate_psnr_db) != set(self.engines):
            raise ValueError("the engines and their PSNR values do not match")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Return the manifest that `to_json` wrote; raises ValueError."""
        values = parse_json(text)
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")  # noqa: TRY004 - a bad value
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error

    def is_older_than(self, other: Manifest) -> bool:
        """Whether this is a lower version of the same bundle: 1.2.0-rc1 < 1.2.0 < 1.10.0."""
        return self.name == other.name and _version_key(self.version) < _version_key(other.version)

    @property
    def folder_name(self) -> str:
        """Name of the folder of this version; different content has a different name."""
        return f"{self.version}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:8]}"

    @property
    def engines(self) -> list[str]:
        """Names of the ONNX engines, sorted."""
        return sorted(path for path in self.files if path.endswith(".onnx"))


def _version_key(version: str) -> list[tuple[int, int, str]]:
    """Return what versions are compared by: words are lower than the end of a version, numbers are higher."""
    parts = re.findall(r"[0-9]+|[A-Za-z]+", version)
    return [(2, int(part), "") if part.isdigit() else (0, 0, part) for part in parts] + [(1, 0, "")]


def _is_allowed_path(path: str) -> bool:
    """Whether a path is relative, in its shortest form, printable, and not that of the manifest or its signature."""
    is_relative = str(PurePosixPath(path)) == path and not path.startswith(("/", "..")) and "/.." not in path
    is_plain = path.isprintable() and len(path.encode()) <= _MAX_PATH_BYTES
    return is_relative and is_plain and path not in {".", MANIFEST, SIGNATURE}


def unpack(bundle: Path, folder: Path, *, signers: Path | None) -> tuple[Manifest, str]:
    """Unpack a bundle into an empty folder, flush it to the disk, and return its manifest and the name of its signer.

    `signers` is an allowed-signers file of OpenSSH; without it the signature is not checked, and the name is empty.
    Raises InputError if a file is missing or damaged, or if no allowed signer signed the bundle, and OutputError if the
    folder cannot be written.
    """
    with open_archive(bundle) as archive:
        content = _read_small_file(archive, archive.next_member(), MANIFEST, bundle)
        member, signature = archive.next_member(), None
        is_signed = member is not None and member.name == SIGNATURE
        if is_signed:
            signature = _read_small_file(archive, member, SIGNATURE, bundle)
        signer = verify(content, signature, signers, bundle) if signers else ""
        try:
            manifest = Manifest.from_json(content.decode())
        except (ValueError, RecursionError) as error:
            raise damaged_error(f"{MANIFEST}: {error}", bundle) from error
        _write_file(folder / MANIFEST, iter([content]))
        missing = dict(manifest.files)
        if is_signed:
            member = archive.next_member()
        while member is not None:
            expected_sha256 = missing.pop(member.name, None)
            if expected_sha256 is None:
                raise damaged_error(f"{member.name!r} is not in its manifest", bundle)
            if _write_file(folder / member.name, archive.read_chunks(member)) != expected_sha256:
                raise damaged_error(f"{member.name!r} does not match its manifest", bundle)
            member = archive.next_member()
    if missing:
        raise damaged_error(f"{min(missing)!r} is missing", bundle)
    for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        sync(path)
    return manifest, signer


def sync(path: Path) -> None:
    """Flush a file, or the names of a folder's files, to the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_small_file(archive: Archive, member: Member | None, name: str, bundle: Path) -> bytes:
    if member is None or member.name != name or member.size > _MAX_MANIFEST_BYTES:
        raise damaged_error(f"it does not begin with {name}", bundle)
    return b"".join(archive.read_chunks(member))


def _write_file(path: Path, chunks: Iterator[bytes]) -> str:
    """Write a file, flush it to the disk, and return its SHA-256."""
    digest = hashlib.sha256()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            for chunk in chunks:
                digest.update(chunk)
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise output_error(path, error) from error
    return digest.hexdigest()
