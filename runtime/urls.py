"""Addresses of network streams: recognise them, and fill in their secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path

from runtime.errors import UsageError
from runtime.redaction import remember_secret

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt")
"""Kinds of streams that can be read."""
_URL = re.compile(rf"(?:{'|'.join(SCHEMES)})://", re.IGNORECASE)
_ANY_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_USER_AND_HOST = re.compile(r"[^./:@][^:@]*:[^@]*@")


def is_url(text: str) -> bool:
    """Return whether a text is the address of a network stream."""
    return _URL.match(text) is not None


def find_scheme(text: str) -> str | None:
    """Return what stands before `:/` of an address in lower case, known or not; None if nothing does."""
    match = _ANY_SCHEME.match(text)
    return match[1].lower() if match else None


def is_mistyped_address(text: str) -> bool:
    """Return whether a text is not an address that can be used, but was probably meant as one.

    It begins with an unknown scheme, or has a user name and a password but no scheme. A path is never taken for one if
    it begins with `.` or `/`.
    """
    return not is_url(text) and (find_scheme(text) is not None or _USER_AND_HOST.match(text) is not None)


def resolve_secrets(text: str) -> str:
    """Return an address with `${NAME}` replaced from the environment; `@FILE` is replaced by the address in the file.

    A text that is not an address is returned as it is. Raises UsageError if the file cannot be read or holds no
    address, or the variable is not set.
    """
    if text.startswith("@"):
        file, text = text[1:], _read(text[1:])
        if "://" not in text:  # neither opened nor shown: it may be a password alone
            raise UsageError("file holds no address", file, hint="write the whole address into it: rtsp://...")
    return _fill_in(text) if is_url(text) else text


def resolve_secret(text: str) -> str:
    """Return a secret with `${NAME}` replaced from the environment; `@FILE` is replaced by the content of the file.

    Raises UsageError if the file cannot be read or the variable is not set.
    """
    return _read(text[1:]) if text.startswith("@") else _fill_in(text)


def _read(file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a zero byte in the path
        raise UsageError(
            "secret cannot be read from its file",
            file,
            hint="check the path after @, or write ./@NAME",
        ) from error


def _fill_in(text: str) -> str:
    def value(name: re.Match[str]) -> str:
        try:
            content = os.environ[name[1]]
        except KeyError as error:
            raise UsageError(f"${{{name[1]}}} is not in the environment", hint="set it, or use @FILE") from error
        remember_secret(content, name[0])
        return content

    return re.sub(r"\$\{(\w+)\}", value, text)
