"""Addresses of network streams: recognise them, fill in their secrets, and hide those in all output."""

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
    """Return whether a text is the address of a network stream."""
    return _URL.match(text) is not None


def redact(text: str) -> str:
    """Return a text with user names, passwords and tokens of addresses replaced by `***`.

    Everything that is shown or written to a file passes through here.
    """
    return _QUERY_SECRET.sub(r"\1***", _SECRET.sub("***@", text))


def resolve_secrets(text: str) -> str:
    """Return an address with `${NAME}` replaced from the environment; `@FILE` is replaced by the content of the file.

    A text that is not an address is returned as it is. Raises UsageError if the file cannot be read or the variable is
    not set.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError("address cannot be read from its file", text[1:], hint="check the path after @") from error

    def value(name: re.Match[str]) -> str:
        try:
            return os.environ[name[1]]
        except KeyError as error:
            raise UsageError(f"${{{name[1]}}} is not in the environment", hint="set it, or use @FILE") from error

    return re.sub(r"\$\{(\w+)\}", value, text) if is_url(text) else text
