"""Addresses of streams, and keeping their passwords to ourselves."""

from __future__ import annotations

import os
import re
from pathlib import Path

from runtime.errors import UsageError

_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt")
_URL = re.compile(rf"(?P<scheme>{'|'.join(_SCHEMES)})://", re.IGNORECASE)
_SECRET = re.compile(r"(?<=://)[^/?#\s]*@")
_QUERY_SECRET = re.compile(r"(?i)\b((?:pass(?:word|wd)?|pwd|token|key|secret|auth\w*)=)[^&\s]+")


def is_url(text: str) -> bool:
    """Whether this is the address of a network stream."""
    return _URL.match(text) is not None


def redact(text: str) -> str:
    """The same without user names, passwords and tokens: for everything that is shown or written."""
    return _QUERY_SECRET.sub(r"\1***", _SECRET.sub("***@", text))


def with_secrets(text: str) -> str:
    """The text with `${NAME}` from the environment, or all of it from a file: `@/etc/deblur/camera`.

    Raises UsageError where they are not there.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("address cannot be read from its file", text[1:], hint="check the path after @") from error

    def value(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError as error:
            raise UsageError(f"${{{found[1]}}} is not in the environment", hint="set it, or use @FILE") from error

    return re.sub(r"\$\{(\w+)\}", value, text) if is_url(text) else text
