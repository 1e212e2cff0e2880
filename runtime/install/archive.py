"""Files of an archive (tar, compressed with zstd), read in order and within limits of memory.

Python's `tarfile` reads extended headers of any length before it returns the first file. Here a member is one header
of 512 bytes and the content of a plain file; every other kind of member is an error.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from runtime.errors import InputError, UsageError
from runtime.libraries import install_hint

_BLOCK_BYTES = 512
_CHUNK_BYTES = 1 << 20
_MAX_FILE_BYTES = 4 << 30
_MAX_PADDING_BYTES = 1 << 20
"""Largest number of zeros after the last file; tar writes 10 KiB at most."""
_MAX_WINDOW_BYTES = 32 << 20
"""Memory that decompression may take; level 19, which `export.bundle` uses, takes 8 MiB."""


@dataclass(frozen=True)
class Member:
    """A file of an archive, before its content is read."""

    name: str
    size: int
    """Size in bytes."""


class Archive:
    """Reads the members of an archive one after another; raises InputError for anything that is not a plain file."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self._stream, self._path = stream, path

    def next_member(self) -> Member | None:
        """Return the next member, whose content has to be read next; None at the end of the archive."""
        block = self._read(_BLOCK_BYTES)
        if not block.strip(b"\0"):
            self._read_padding()
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.TarError, ValueError) as error:
            raise damaged_error(str(error), self._path) from error
        if header.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            raise damaged_error(f"{header.name!r} is not a plain file (tar type {header.type!r})", self._path)
        if not 0 <= header.size <= _MAX_FILE_BYTES:
            raise damaged_error(f"{header.name!r} is larger than {_MAX_FILE_BYTES >> 30} GiB", self._path)
        return Member(header.name, header.size)

    def read_chunks(self, member: Member) -> Iterator[bytes]:
        """Yield the content of the member that was returned last."""
        left = member.size
        while left:
            chunk = self._read(min(left, _CHUNK_BYTES))
            left -= len(chunk)
            yield chunk
        self._read(-member.size % _BLOCK_BYTES)

    def _read(self, size: int) -> bytes:
        """Return exactly `size` bytes."""
        parts = []
        while size and (part := self._stream.read(size)):
            parts.append(part)
            size -= len(part)
        if size:
            raise damaged_error("it ends early", self._path)
        return b"".join(parts)

    def _read_padding(self) -> None:
        """Read to the end of the stream, where its checksum is compared."""
        left = _MAX_PADDING_BYTES
        while chunk := self._stream.read(_CHUNK_BYTES):
            left -= len(chunk)
            if left < 0 or chunk.strip(b"\0"):
                raise damaged_error("something follows its last file", self._path)


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive; raises InputError for anything that cannot be read or decompressed."""
    try:
        import zstandard  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise UsageError("zstandard is not installed", hint=install_hint("zstandard")) from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    try:
        with path.open("rb") as compressed, decompressor.stream_reader(compressed) as stream:
            yield Archive(cast("BinaryIO", stream), path)
    except PermissionError as error:
        raise InputError("this user may not read it", path, hint="copy it to /tmp and let all users read it") from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or error})", path, hint="copy it again") from error
    except zstandard.ZstdError as error:
        raise damaged_error(str(error), path) from error


def damaged_error(reason: str, path: Path) -> InputError:
    """Return the error for an archive that is not as it was when it was made."""
    return InputError(f"bundle is damaged ({reason})", path, hint="copy it again; nothing was changed")
