"""What a bundle holds, and how it is unpacked: nothing of it is used before it is known to be whole and signed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

from runtime.errors import InputError, UsageError
from runtime.files import unwritable

MANIFEST, SIGNATURE = "manifest.json", "manifest.json.sig"
NAMESPACE = "deblur-bundle"
"""Of signatures (ssh-keygen -Y), so that one made for something else does not count."""
BLURRED, SHARP = "gate/blur", "gate/sharp"
SCHEMA = 1
_LARGEST = 4 << 30
_LARGEST_MANIFEST = 1 << 20
_PIECE = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The first file of a bundle, which the signature is of; it names all others by their SHA-256."""

    name: str
    version: str
    files: dict[str, str]
    """SHA-256 by path: engines, sidecars and reports at the top, frames of the gate in `gate/`."""
    gate_psnr_db: dict[str, float]
    """Of each engine, mean over the gate's frames, on the machine that made the bundle."""
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(f"schema {self.schema}, where {SCHEMA} is known")
        if not all(re.fullmatch(r"[A-Za-z0-9._-]+", each) and each[0] != "." for each in (self.name, self.version)):
            raise ValueError(f"name and version must be of letters, digits, . _ and -, got {self.name} {self.version}")
        for path in self.files:
            if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or path in {MANIFEST, SIGNATURE}:
                raise ValueError(f"no such path may be in a bundle: {path!r}")
        if set(self.gate_psnr_db) != set(self.engines):
            raise ValueError("it does not say what each engine gives")

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The inverse of `to_json`; raises ValueError."""
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("expected a JSON object")  # noqa: TRY004 - a bad value
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from error

    @property
    def folder(self) -> str:
        """Where this version lies; another content has another name."""
        return f"{self.version}-{hashlib.sha256(self.to_json().encode()).hexdigest()[:8]}"

    @property
    def engines(self) -> list[str]:
        return sorted(path for path in self.files if path.endswith(".onnx"))


def unpack(bundle: Path, folder: Path, *, signers: Path | None) -> tuple[Manifest, str]:
    """Unpack a bundle into an empty folder and flush it to the disk; its manifest and who signed it.

    `signers`: an allowed-signers file of OpenSSH; without one no signature is asked for, and nobody is named. Raises
    InputError where anything is missing, damaged, or not signed by one of them, OutputError where there is no room.
    """
    with _archive(bundle) as archive:
        members = iter(archive)
        content = _small(archive, next(members, None), MANIFEST, bundle)
        member = next(members, None)
        signature = None
        if member is not None and member.name == SIGNATURE:
            signature = _small(archive, member, SIGNATURE, bundle)
            member = next(members, None)
        signer = _signer(content, signature, signers, bundle) if signers else ""
        try:
            manifest = Manifest.from_json(content.decode())
        except ValueError as error:
            raise _damaged(f"{MANIFEST}: {error}", bundle) from error
        _write(folder / MANIFEST, iter([content]))
        missing = dict(manifest.files)
        while member is not None:
            expected = missing.pop(member.name, None)
            file = archive.extractfile(member) if member.isfile() else None
            if expected is None or file is None:
                raise _damaged(f"{member.name} is not in its manifest", bundle)
            if _write(folder / member.name, _pieces(file)) != expected:
                raise _damaged(f"{member.name} is not the one in its manifest", bundle)
            member = next(members, None)
    if missing:
        raise _damaged(f"{min(missing)} is missing", bundle)
    for path in (folder, *(each for each in folder.rglob("*") if each.is_dir())):
        flush(path)
    return manifest, signer


@contextmanager
def _archive(bundle: Path) -> Iterator[tarfile.TarFile]:
    try:
        import zstandard  # noqa: PLC0415 - only for those who install bundles
    except ImportError as error:
        raise UsageError("zstandard is not installed", hint="pip install 'deblur-toolkit[bundle]'") from error
    try:
        with (
            bundle.open("rb") as packed,
            zstandard.ZstdDecompressor().stream_reader(packed) as stream,
            tarfile.open(fileobj=stream, mode="r|") as archive,
        ):
            yield archive
            while stream.read(_PIECE):  # as far as the checksum
                pass
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", bundle, hint="copy it again") from error
    except (zstandard.ZstdError, tarfile.TarError, EOFError) as error:
        raise _damaged(str(error), bundle) from error


def _small(archive: tarfile.TarFile, member: tarfile.TarInfo | None, name: str, bundle: Path) -> bytes:
    file = archive.extractfile(member) if member and member.isfile() and member.name == name else None
    if member is None or file is None or member.size > _LARGEST_MANIFEST:
        raise _damaged(f"it does not begin with {name}", bundle)
    return file.read()


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _write(path: Path, pieces: Iterator[bytes]) -> str:
    """Write a file and flush it to the disk; its SHA-256."""
    digest, size = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            for piece in pieces:
                size += len(piece)
                if size > _LARGEST:
                    raise InputError(f"larger than {_LARGEST >> 30} GiB", path.name, hint="make the bundle again")
                digest.update(piece)
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
    except OSError as error:
        raise unwritable(path, error) from error
    return digest.hexdigest()


def flush(folder: Path) -> None:
    """What names a folder holds, to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _signer(content: bytes, signature: bytes | None, signers: Path, bundle: Path) -> str:
    hint = "ask whoever made it; nothing was changed"
    if signature is None:
        raise InputError("bundle is not signed", bundle, hint=hint)
    with TemporaryDirectory(prefix="deblur-bundle-") as folder:
        file = Path(folder) / SIGNATURE
        file.write_bytes(signature)
        allowed = ["-f", str(signers), "-s", str(file)]
        found = _ssh_keygen(["-Y", "find-principals", *allowed])
        signer = found.stdout.decode().split("\n")[0]
        check = ["-Y", "verify", *allowed, "-I", signer, "-n", NAMESPACE]
        if found.returncode or not signer or _ssh_keygen(check, content).returncode:
            raise InputError(f"bundle is not signed by anyone in {signers.name}", bundle, hint=hint)
    return signer


def sign(manifest: Path, key: Path) -> Path:
    """Sign a manifest with an SSH key; the signature beside it. Raises UsageError."""
    made = _ssh_keygen(["-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(manifest)])
    if made.returncode:
        reason = made.stderr.decode().strip().splitlines()
        raise UsageError(f"cannot sign ({reason[-1] if reason else 'no reason given'})", key, hint="give an SSH key")
    return manifest.with_name(SIGNATURE)


def _ssh_keygen(arguments: list[str], content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["ssh-keygen", *arguments], input=content, capture_output=True, check=False)  # noqa: S603, S607
    except FileNotFoundError as error:
        raise UsageError("ssh-keygen is not installed", hint="apt install openssh-client") from error


def _damaged(what: Any, bundle: Path) -> InputError:
    return InputError(f"bundle is damaged ({what})", bundle, hint="copy it again; nothing was changed")
