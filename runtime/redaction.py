"""Secrets of addresses, hidden in everything that is shown or written to a file."""

from __future__ import annotations

import re

_HIDDEN = "***"
_HARMLESS = re.compile(
    "audio|buffer_size|camera|channel|codec|fifo_size|format|fps|height|index|latency|linktype|listen|localport|mode|"
    "overrun_nonfatal|pkt_size|profile|proto|rcvlatency|real_stream|resolution|rotation|stream|subtype|timeout|track|"
    "trackid|transport|ttl|unicast|video|width",
    re.IGNORECASE,
)
"""Keys of a query whose values are shown; all others may hold a password, token or signature."""
_PAIR = re.compile(r"(?<![A-Za-z0-9-])([A-Za-z][A-Za-z0-9-]*)=.*?(?=[&;/]|_[A-Za-z0-9-]+=|$)", re.DOTALL)
"""`key=value` in a path, where some cameras want the password: /user=admin_password=PASSWORD_channel=1"""
_SECRET_PAIR = re.compile(
    r"(?i)(?<![\w-])(?=[\w-]*(?:pass|pwd|token|key|secret|auth|sig|credential))([\w-]+)=(?!\*\*\*)[^&\s]+"
)
_MIN_VALUE_CHARACTERS = 4
"""A shorter value is not replaced wherever it occurs, because it is part of other words."""
_values: dict[str, str] = {}
"""Name of each value that an address got from the environment: `${NAME}` by value."""


def remember_secret(value: str, name: str) -> None:
    """Let `redact` show `name` instead of a value wherever the value occurs."""
    if len(value) >= _MIN_VALUE_CHARACTERS:
        _values[value] = name


def redact(text: str) -> str:
    """Return a text in which the secrets of its addresses are replaced by `***`.

    Hidden are user names and passwords, the values of a query except those of a few harmless keys, what follows the
    first folder of an RTMP address (the stream key), and the values that `remember_secret` knows. When in doubt, more
    is hidden.
    """
    text = re.sub(r"\S+", lambda word: _redact_word(word[0]), _name_values(text))
    return _SECRET_PAIR.sub(rf"\1={_HIDDEN}", text)


def redact_address(text: str) -> str:
    """Return a text that is one address, or one path, without its secrets, which may contain spaces."""
    text = _name_values(text)
    return _redact_url(text) if "://" in text else redact(text)


def _name_values(text: str) -> str:
    for value in sorted(_values, key=len, reverse=True):
        text = text.replace(value, _values[value])
    return text


def _redact_word(word: str) -> str:
    rest = word.lstrip("([{<'\"")
    core = rest.rstrip(".,;:!?)]}>'\"")
    start, end = word[: len(word) - len(rest)], rest[len(core) :]
    if "://" in core:
        return start + _redact_url(core) + end
    before, at, host = core.rpartition("@")
    return f"{start}{_HIDDEN}@{host}{end}" if at and ":" in before else word  # a mistyped address


def _redact_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    user, at, place = rest.rpartition("@")  # the last @: a password may hold @, /, ? and #
    place, hash_sign, fragment = place.partition("#")
    place, question_mark, query = place.partition("?")
    host, slash, path = place.partition("/")
    if scheme.lower().endswith(("rtmp", "rtmps", "rtmpt", "rtmpe", "rtmpte", "rtmpts")):
        application, key_slash, key = path.partition("/")
        path = application + key_slash + (_HIDDEN if key else "")
    else:
        path = _PAIR.sub(lambda pair: pair[0] if _is_harmless(pair[1]) else f"{pair[1]}={_HIDDEN}", path)
    query = "".join(_redact_pair(part) for part in re.split(r"([&;])", query))
    fragment = fragment and _HIDDEN
    user = user and _HIDDEN
    return f"{scheme}://{user}{at}{host}{slash}{path}{question_mark}{query}{hash_sign}{fragment}"


def _redact_pair(part: str) -> str:
    key, equals, _ = part.partition("=")
    if part in {"", "&", ";"} or _is_harmless(key):
        return part
    return f"{key}={_HIDDEN}" if equals else _HIDDEN


def _is_harmless(key: str) -> bool:
    return _HARMLESS.fullmatch(key) is not None
